"""Parts of the backbone; they import torch, and triton where it is installed."""

from illama_seg.layers.attention import (
    attention_map,
    automatic_implementation,
    causal_attention,
    soft_causal_attention,
)
from illama_seg.layers.block import (
    FFNS,
    MASKS,
    NORM_EPS,
    NORMS,
    Block,
    DropPath,
    Keys,
    SelfAttention,
    SoftMask,
    make_norm,
)
from illama_seg.layers.enlarged_conv import conv_of_enlarged
from illama_seg.layers.linear_layer import (
    Linear,
    automatic_product,
    check_linear_asked,
    linear,
)
from illama_seg.layers.mlp import MLP
from illama_seg.layers.pos_embed import PatchEmbed, join_class_slot, resize_pos_embed
from illama_seg.layers.rotary import (
    ROTARY_GRIDS,
    apply_rotary,
    class_table,
    grid_table,
    rotary_table,
)
from illama_seg.layers.seen import seen_keys, with_class_token
from illama_seg.layers.swiglu import SwiGLU, swiglu_hidden_dims

__all__ = [
    'FFNS',
    'MASKS',
    'MLP',
    'NORMS',
    'NORM_EPS',
    'ROTARY_GRIDS',
    'Block',
    'DropPath',
    'Keys',
    'Linear',
    'PatchEmbed',
    'SelfAttention',
    'SoftMask',
    'SwiGLU',
    'apply_rotary',
    'attention_map',
    'automatic_implementation',
    'automatic_product',
    'causal_attention',
    'check_linear_asked',
    'class_table',
    'conv_of_enlarged',
    'grid_table',
    'join_class_slot',
    'linear',
    'make_norm',
    'resize_pos_embed',
    'rotary_table',
    'seen_keys',
    'soft_causal_attention',
    'swiglu_hidden_dims',
    'with_class_token',
]
