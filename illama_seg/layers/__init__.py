"""Parts of the backbone; they import torch, and triton where it is installed."""

from illama_seg.layers.attention import causal_attention, soft_causal_attention
from illama_seg.layers.block import NORM_EPS, Block, CausalSelfAttention, DropPath
from illama_seg.layers.pos_embed import PatchEmbed, resize_pos_embed
from illama_seg.layers.rotary import apply_rotary, rotary_table
from illama_seg.layers.swiglu import SwiGLU, swiglu_hidden_dims

__all__ = [
    'NORM_EPS',
    'Block',
    'CausalSelfAttention',
    'DropPath',
    'PatchEmbed',
    'SwiGLU',
    'apply_rotary',
    'causal_attention',
    'resize_pos_embed',
    'rotary_table',
    'soft_causal_attention',
    'swiglu_hidden_dims',
]
