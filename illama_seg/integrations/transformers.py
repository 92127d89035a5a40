"""A strictly causal backbone as Hugging Face's ``LlamaModel``, and back.

The blocks of an ``ILLaMA`` with ``attn_mask='strict'`` (Eq. 1 of arXiv 2404.06773) are
those of LLaMA, with biases at the attention's products: ``attention_bias``. Two things
differ in form. ``LlamaModel`` rotates channel i with i + d / 2 where Meta's LLaMA and
this package rotate 2i with 2i + 1, so the rows of queries and keys change places. And
it holds queries, keys and values in three layers.

A ``LlamaModel`` knows no images: it takes the patches of :func:`embed_images` as
``inputs_embeds``. Its only word, number 0, is the class token.

Needs transformers 5.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from illama_seg.backbones.arguments import check_images
from illama_seg.backbones.illama import ILLaMA
from illama_seg.backbones.sequence import class_token, needs_height, with_positions
from illama_seg.errors import UserError
from illama_seg.layers import NORM_EPS

# Ours -> LlamaModel's, of one block; queries, keys and values are treated apart.
NAMES = {
    'norm1.weight': 'input_layernorm.weight',
    'norm2.weight': 'post_attention_layernorm.weight',
    'attn.proj.weight': 'self_attn.o_proj.weight',
    'attn.proj.bias': 'self_attn.o_proj.bias',
    'mlp.fc1.weight': 'mlp.gate_proj.weight',
    'mlp.fc3.weight': 'mlp.up_proj.weight',
    'mlp.fc2.weight': 'mlp.down_proj.weight',
}
PARTS = 'self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'


def to_llama_model(backbone: ILLaMA) -> Any:
    """Make a ``LlamaModel`` with the weights of a backbone.

    Save it by its ``save_pretrained``. The final norm is that of the class token, or
    has weights of one where the backbone has none. Learnable queries are not part of
    it.

    Args:
        backbone: with the parts of LLaMA and a strictly causal mask.

    Returns:
        The model, in evaluation mode, with the dtype and device of the backbone.

    Raises:
        UserError: if the backbone is another model than LLaMA, or transformers is not
            installed.
    """
    _check_parts(backbone)
    library = _library()
    hidden_dims = _hidden_dims(backbone)
    config = library.LlamaConfig(
        vocab_size=1,
        hidden_size=backbone.embed_dims,
        intermediate_size=hidden_dims,
        num_hidden_layers=len(backbone.blocks),
        num_attention_heads=backbone.num_heads,
        num_key_value_heads=backbone.num_heads,
        head_dim=backbone.embed_dims // backbone.num_heads,
        max_position_embeddings=2**20,
        rms_norm_eps=NORM_EPS,
        attention_bias=True,
        mlp_bias=False,
        rope_parameters=dict(rope_type='default', rope_theta=10_000.0),
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    weight = backbone.cls_token
    with torch.device('meta'):
        model = library.LlamaModel(config)
    state = {'embed_tokens.weight': class_token(backbone)[0]}
    own: Any = getattr(backbone, 'norm', None)
    ones = torch.ones(backbone.embed_dims, dtype=weight.dtype, device=weight.device)
    state['norm.weight'] = ones if own is None else own.weight
    for index, block in enumerate(backbone.blocks):
        layer = f'layers.{index}.'
        weights = block.state_dict()
        for ours, theirs in NAMES.items():
            state[layer + theirs] = weights[ours]
        for kind in ('weight', 'bias'):
            parts = weights[f'attn.qkv.{kind}'].chunk(3)
            for name, part in zip(PARTS, parts, strict=True):
                turned = name != PARTS[2]
                part = _to_halves(part, backbone.num_heads) if turned else part
                state[f'{layer}{name}.{kind}'] = part
    # Copies: the two models are trained apart.
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    # Its table of angles is no weight: made anew, since that one is on 'meta'.
    model.rotary_emb = type(model.rotary_emb)(config).to(weight.device)
    return model.requires_grad_(True).eval()


def load_llama_model(backbone: ILLaMA, llama: Any) -> None:
    """Give a backbone the weights of a ``LlamaModel``: blocks, class token, final norm.

    The patch embedding and the learnable positions stay as they are; the class token
    is the model's word 0, less the class token's position.

    Args:
        backbone: with the parts of LLaMA and a strictly causal mask.
        llama: ``LlamaModel`` of the same size, from :func:`to_llama_model` or
            ``LlamaModel.from_pretrained``; or a ``LlamaForCausalLM`` with one.

    Raises:
        UserError: if the two models differ in size or parts.
    """
    _check_parts(backbone)
    library = _library()
    if isinstance(llama, library.LlamaForCausalLM):
        llama = llama.model
    if not isinstance(llama, library.LlamaModel):
        raise UserError(
            f'llama is of {type(llama).__name__}: expected a LlamaModel, as from '
            'LlamaModel.from_pretrained'
        )
    config = llama.config
    found = dict(
        hidden_size=backbone.embed_dims,
        intermediate_size=_hidden_dims(backbone),
        num_hidden_layers=len(backbone.blocks),
        num_attention_heads=backbone.num_heads,
        num_key_value_heads=backbone.num_heads,
        head_dim=backbone.embed_dims // backbone.num_heads,
        rms_norm_eps=NORM_EPS,
        attention_bias=True,
        mlp_bias=False,
        hidden_act='silu',
    )
    for name, expected in found.items():
        value = getattr(config, name)
        if value != expected:
            raise UserError(
                f'the LlamaModel has {name}={value}: the backbone takes {expected}'
            )
    rotary = config.rope_parameters
    whole = rotary.get('partial_rotary_factor', 1.0) == 1.0
    plain = (
        rotary.get('rope_theta') == 10_000.0 and rotary.get('rope_type') == 'default'
    )
    if not (whole and plain):
        raise UserError(
            f'the LlamaModel has rope_parameters={rotary}: the backbone takes the '
            "rope_type 'default' with rope_theta 10000"
        )
    state = llama.state_dict()
    with torch.no_grad():
        position = class_token(backbone) - backbone.cls_token
        backbone.cls_token.copy_(state['embed_tokens.weight'][:1] - position)
        own: Any = getattr(backbone, 'norm', None)
        if own is not None:
            own.weight.copy_(state['norm.weight'])
        for index, block in enumerate(backbone.blocks):
            layer = f'layers.{index}.'
            weights = {ours: state[layer + theirs] for ours, theirs in NAMES.items()}
            for kind in ('weight', 'bias'):
                parts = [state[f'{layer}{name}.{kind}'] for name in PARTS]
                turned = [_to_pairs(part, backbone.num_heads) for part in parts[:2]]
                weights[f'attn.qkv.{kind}'] = torch.cat([*turned, parts[2]])
            block.load_state_dict(weights)


def embed_images(
    backbone: ILLaMA, images: Tensor, first_row: int = 0, total_rows: int | None = None
) -> Tensor:
    """Embed the patches of images, or of a band of rows, for a ``LlamaModel``.

    Args:
        backbone: whose patch embedding and learnable positions.
        images: (B, in_channels, H, W).
        first_row: row of patches that the band starts at.
        total_rows: rows of patches of the whole image; by default the band's.

    Returns:
        (B, N, C), in raster order: ``inputs_embeds``.

    Raises:
        UserError: if the band lies outside the image, or the backbone is no LLaMA.
    """
    _check_parts(backbone)
    check_images(images, backbone.patch_embed.proj.in_channels)
    x, (rows, width) = backbone.patch_embed(images)
    end = total_rows if total_rows is not None else rows
    known = total_rows is not None or first_row == 0 or not needs_height(backbone)
    if (
        first_row < 0
        or not known
        or (total_rows is not None and first_row + rows > end)
    ):
        raise UserError(
            f'first_row={first_row} of total_rows={total_rows}, a band of {rows}: '
            'expected a band inside the image, and its rows of patches'
        )
    return with_positions(backbone, x, width, first_row, total_rows)


def _library() -> Any:
    try:
        return importlib.import_module('transformers')
    except ImportError as error:
        raise UserError(
            "a LlamaModel needs transformers 5: pip install 'transformers>=5'"
        ) from error


def _check_parts(backbone: ILLaMA) -> None:
    """Refuse what is no LLaMA.

    Raises:
        UserError: names the argument of the backbone.
    """
    if not isinstance(backbone, ILLaMA):
        raise UserError(
            f'backbone is of {type(backbone).__name__}: expected an ILLaMA, such as '
            'the backbone of a segmentor'
        )
    block: Any = backbone.blocks[0]
    parts = {
        'attn_mask': (backbone.attn_mask, 'strict'),
        'cls_position': (backbone.cls_position, 'last'),
        'with_rotary': (backbone.with_rotary, True),
        'rotary_grid': (backbone.rotary_grid, 'raster'),
        'memory_rows': (backbone.memory_rows, None),
        'lora': (backbone.lora, None),
        'ffn': ('swiglu' if hasattr(block.mlp, 'fc3') else 'mlp', 'swiglu'),
        'norm': (
            'rms' if isinstance(block.norm1, torch.nn.RMSNorm) else 'layer',
            'rms',
        ),
    }
    for name, (found, expected) in parts.items():
        if found != expected:
            raise UserError(
                f'ILLaMA {name}={found!r} is no LlamaModel: expected {expected!r}'
            )


def _hidden_dims(backbone: ILLaMA) -> int:
    block: Any = backbone.blocks[0]
    return block.mlp.fc1.weight.size(0)


def _to_halves(part: Tensor, num_heads: int) -> Tensor:
    """Channels (2i, 2i + 1) of each head to (i, i + d / 2)."""
    return part.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def _to_pairs(part: Tensor, num_heads: int) -> Tensor:
    """Channels (i, i + d / 2) of each head to (2i, 2i + 1)."""
    return part.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).flatten(0, 2)
