"""Adapters of low rank for the blocks of a backbone (LoRA, arXiv 2106.09685), by peft.

State dicts have the names of ``checkpoints/lora.py``: those of the backbone without
adapters, and the adapters' own beside them.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from illama_seg.checkpoints.lora import SCALING_KEY
from illama_seg.errors import UserError

ARGUMENTS = ('r', 'lora_alpha')
# All linear layers of a block; 'proj' alone would be the patch embedding's as well.
LAYERS = ('attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2', 'mlp.fc3')
# In state dicts -> in peft's layer.
_NAMES = {
    'weight': 'base_layer.weight',
    'bias': 'base_layer.bias',
    'lora_A.weight': 'lora_A.default.weight',
    'lora_B.weight': 'lora_B.default.weight',
}


def add_lora(backbone: nn.Module, lora: Mapping[str, Any]) -> None:
    """Freeze a backbone, and give the linear layers of its blocks adapters to train.

    Args:
        backbone: changed in place; its outputs stay the same until the first update.
        lora: ``r``, the rank, and ``lora_alpha``; their product B A is scaled by
            lora_alpha / r.

    Raises:
        UserError: for other arguments, or if peft is not installed.
    """
    numbers = all(type(lora.get(k)) in (int, float) and lora[k] > 0 for k in ARGUMENTS)
    if set(lora) != set(ARGUMENTS) or not numbers or type(lora['r']) is not int:
        raise UserError(
            f'ILLaMA lora={dict(lora)}: expected None, or dict(r=RANK, '
            'lora_alpha=ALPHA) with positive numbers, such as dict(r=8, lora_alpha=16)'
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    except ImportError as error:
        raise UserError(
            f'ILLaMA lora={dict(lora)} needs peft: pip install peft, or this package '
            'with its extra [lora]'
        ) from error
    blocks: Any = backbone.blocks
    inject_adapter_in_model(LoraConfig(target_modules=list(LAYERS), **lora), backbone)
    backbone.requires_grad_(False)
    layers: list[Any] = [m for m in blocks.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer.lora_A.requires_grad_(True)
        layer.lora_B.requires_grad_(True)
        layer.register_state_dict_post_hook(_rename_to_plain)
        layer.register_load_state_dict_pre_hook(_rename_to_peft)
    scaling = torch.tensor(lora['lora_alpha'] / lora['r'])
    backbone.register_buffer(SCALING_KEY, scaling)
    backbone.register_load_state_dict_pre_hook(_check_scaling)


def _rename_to_plain(layer: nn.Module, state: dict, prefix: str, meta: dict) -> None:
    for plain, name in _NAMES.items():
        if prefix + name in state:
            state[prefix + plain] = state.pop(prefix + name)


def _rename_to_peft(layer: nn.Module, state: dict, prefix: str, *args: Any) -> None:
    for plain, name in _NAMES.items():
        if prefix + plain in state:
            state[prefix + name] = state.pop(prefix + plain)


def _check_scaling(
    backbone: nn.Module, state: dict[str, Tensor], prefix: str, *args: Any
) -> None:
    own, found = getattr(backbone, SCALING_KEY), state.get(prefix + SCALING_KEY)
    if found is not None and not math.isclose(float(found), float(own), rel_tol=0.01):
        raise UserError(
            f'the checkpoint was trained with lora_alpha / r = {float(found):g}, '
            f'model.backbone.lora has {float(own):g}: set both as in its training'
        )
