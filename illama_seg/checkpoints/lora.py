"""Adapters of low rank (LoRA, arXiv 2106.09685) among a checkpoint's weights.

A linear layer ``L`` with an adapter has ``L.weight`` (out, in) as without one, and
``L.lora_A.weight`` (r, in) and ``L.lora_B.weight`` (out, r). The backbone notes the
factor lora_alpha / r of all its adapters as ``lora_scaling``.
"""

from collections.abc import Mapping

from torch import Tensor

from illama_seg.errors import UserError

SCALING_KEY = 'lora_scaling'


def is_lora(key: str) -> bool:
    """Return True for the key of an adapter's weight, or of the adapters' factor."""
    return (
        '.lora_A.' in key or '.lora_B.' in key or key.rpartition('.')[2] == SCALING_KEY
    )


def merge_adapters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add each adapter to its layer's weight, W + lora_scaling * B A.

    Args:
        weights: of a backbone, or of a model around it, with adapters.

    Returns:
        The weights of the model without adapters, in their dtypes.

    Raises:
        UserError: if there is no adapter, or a part of one is missing.
    """
    factors = [value for key, value in weights.items() if key.endswith(SCALING_KEY)]
    layers = [key.partition('.lora_A.')[0] for key in weights if '.lora_A.' in key]
    parts = ('weight', 'lora_A.weight', 'lora_B.weight')
    found = all(f'{layer}.{part}' in weights for layer in layers for part in parts)
    if not layers or not found or len(factors) != 1 or factors[0].numel() != 1:
        raise UserError(
            'expected layers with lora_A and lora_B, and one lora_scaling, as a '
            'training with model.backbone.lora writes them: leave merge_lora out',
            merge_lora=True,
        )
    merged = {key: value for key, value in weights.items() if not is_lora(key)}
    for layer in layers:
        weight, down, up = (weights[f'{layer}.{part}'] for part in parts)
        update = up @ down * factors[0].item()
        merged[f'{layer}.weight'] = weight + update.to(weight.dtype)
    return merged
