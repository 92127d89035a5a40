"""Attention and feed-forward network in 8 bits: simulated, to train; in integers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from illama_seg.layers import MLP, SelfAttention, SwiGLU
from illama_seg.quantization.int8 import Int8Linear, int8_attention
from illama_seg.quantization.masks import mask_rows
from illama_seg.quantization.quantizer import SIGNED, Quantizer, QuantLinear, positive

Rate = float | Tensor


class QuantAttention(SelfAttention):
    """:class:`SelfAttention` that rounds weights, inputs and factors of both products.

    Softmax and mask are the float model's; the probabilities are rounded after both.
    """

    def __init__(self, embed_dims: int, num_heads: int, mask: str) -> None:
        super().__init__(embed_dims, num_heads, mask)
        self.impl = '8 bits'
        self.qkv = QuantLinear(embed_dims, 3 * embed_dims, bias=True)
        self.proj = QuantLinear(embed_dims, embed_dims, bias=True)
        self.q, self.k, self.v = Quantizer(), Quantizer(), Quantizer()
        self.probabilities = Quantizer(signed=False)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, soft_mask_rate: Rate) -> Tensor:
        """(B, h, N, d) each -> (B, h, N, d)."""
        q, k, v = self.q(q), self.k(k), self.v(v)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        rate, n = float(soft_mask_rate), q.shape[2]
        hidden, factor = mask_rows(self.mask, rate, range(n), n, q.device)
        if hidden is not None:
            scores = scores.masked_fill(hidden, float('-inf'))
        weights = scores.softmax(-1)
        if factor is not None:
            weights = weights * factor
        return self.probabilities(weights).to(v.dtype) @ v


class QuantSwiGLU(SwiGLU):
    """:class:`SwiGLU` in 8 bits; gate and up take the same rounded input."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__(embed_dims, hidden_dims)
        self.input = Quantizer()
        self.fc1 = QuantLinear(embed_dims, hidden_dims, False, with_input=False)
        self.fc2 = QuantLinear(hidden_dims, embed_dims, bias=False)
        self.fc3 = QuantLinear(embed_dims, hidden_dims, False, with_input=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        return super().forward(self.input(x))


class QuantMLP(MLP):
    """:class:`MLP` in 8 bits."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__(embed_dims, hidden_dims)
        self.fc1 = QuantLinear(embed_dims, hidden_dims, bias=True)
        self.fc2 = QuantLinear(hidden_dims, embed_dims, bias=True)


class Int8Attention(SelfAttention):
    """Integer arithmetic of a :class:`QuantAttention`, on a CPU."""

    steps: Tensor
    qkv: Any
    proj: Any

    def __init__(self, embed_dims: int, num_heads: int, mask: str) -> None:
        super().__init__(embed_dims, num_heads, mask)
        self.impl = 'int8'
        self.qkv = Int8Linear(embed_dims, 3 * embed_dims, bias=True)
        self.proj = Int8Linear(embed_dims, embed_dims, bias=True)
        self.register_buffer('steps', torch.ones(4))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, soft_mask_rate: Rate) -> Tensor:
        """(B, h, N, d) each -> (B, h, N, d)."""
        q_step, k_step, v_step, p_step = self.steps.tolist()
        steps = q_step, k_step, v_step, p_step
        return int8_attention(q, k, v, steps, self.mask, float(soft_mask_rate))


class Int8SwiGLU(nn.Module):
    """Integer arithmetic of a :class:`QuantSwiGLU`; gate and up are one product."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.gate_up = Int8Linear(embed_dims, 2 * hidden_dims, bias=False)
        self.fc2 = Int8Linear(hidden_dims, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate, inplace=True).mul_(up))


class Int8MLP(nn.Module):
    """Integer arithmetic of a :class:`QuantMLP`."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Int8Linear(embed_dims, hidden_dims, bias=True)
        self.fc2 = Int8Linear(hidden_dims, embed_dims, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        return self.fc2(F.gelu(self.fc1(x)))


def make_quantized(block: Any, integers: bool) -> None:
    """Give a block parts in 8 bits instead of its own, their weights still unset."""
    attn, fc1 = block.attn, block.mlp.fc1
    sizes = attn.qkv.in_features, attn.num_heads, attn.mask
    block.attn = Int8Attention(*sizes) if integers else QuantAttention(*sizes)
    widths = fc1.in_features, fc1.out_features
    if isinstance(block.mlp, SwiGLU):
        block.mlp = Int8SwiGLU(*widths) if integers else QuantSwiGLU(*widths)
    else:
        block.mlp = Int8MLP(*widths) if integers else QuantMLP(*widths)


@torch.no_grad()
def fill_integers(block: Any, learned: Any) -> None:
    """Round what a simulated block has learned into a block of integers."""
    attn, source = block.attn, learned.attn
    _fill(attn.qkv, source.qkv.input, source.qkv)
    _fill(attn.proj, source.proj.input, source.proj)
    order = source.q, source.k, source.v, source.probabilities
    attn.steps.copy_(torch.cat([positive(quantizer.step) for quantizer in order]))
    mlp, source = block.mlp, learned.mlp
    if isinstance(source, QuantSwiGLU):
        _fill(mlp.gate_up, source.input, source.fc1, source.fc3)
    else:
        _fill(mlp.fc1, source.fc1.input, source.fc1)
    _fill(mlp.fc2, source.fc2.input, source.fc2)


def _fill(target: Int8Linear, quantizer: Any, *linears: Any) -> None:
    target.step.copy_(positive(quantizer.step))
    steps = torch.cat([positive(linear.weight_step) for linear in linears])
    weight = torch.cat([linear.weight for linear in linears])
    # As the simulation divides: by the reciprocal.
    rounded = torch.round(weight.float() * (1 / steps)[:, None]).clamp(*SIGNED)
    target.weight_step.copy_(steps)
    target.weight.copy_(rounded)
    if target.bias is not None:
        target.bias.copy_(torch.cat([linear.bias for linear in linears]))
