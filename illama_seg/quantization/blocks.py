"""Attention and feed-forward network in 8 bits: simulated, to train; in integers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from illama_seg.layers import MLP, Block, SelfAttention, SwiGLU
from illama_seg.quantization.int8 import Int8Linear, int8_attention
from illama_seg.quantization.probabilities import probabilities
from illama_seg.quantization.quantizer import (
    SIGNED,
    Quantizer,
    QuantLinear,
    positive,
)

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
        weights = probabilities(scores, self.mask, float(soft_mask_rate))
        return self.probabilities(weights).to(v.dtype) @ v


class QuantSwiGLU(SwiGLU):
    """:class:`SwiGLU` in 8 bits; gate and up take the same rounded input."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__(embed_dims, hidden_dims)
        self.input = Quantizer()
        options = dict(bias=False, with_input=False)
        self.fc1 = QuantLinear(embed_dims, hidden_dims, **options)
        self.fc2 = QuantLinear(hidden_dims, embed_dims, bias=False)
        self.fc3 = QuantLinear(embed_dims, hidden_dims, **options)

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
    """What a :class:`QuantAttention` simulates, in integers; on a CPU."""

    steps: Tensor

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
    """What a :class:`QuantSwiGLU` simulates; gate and up are one product."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.gate_up = Int8Linear(embed_dims, 2 * hidden_dims, bias=False)
        self.fc2 = Int8Linear(hidden_dims, embed_dims, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate, inplace=True).mul_(up))


class Int8MLP(nn.Module):
    """What a :class:`QuantMLP` simulates."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Int8Linear(embed_dims, hidden_dims, bias=True)
        self.fc2 = Int8Linear(hidden_dims, embed_dims, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """(..., embed_dims) -> (..., embed_dims)."""
        return self.fc2(F.gelu(self.fc1(x)))


def make_quantized(block: Block, integers: bool) -> None:
    """Give a block of the float model parts in 8 bits, their weights still unset."""
    attn = block.attn
    sizes = attn.qkv.in_features, attn.num_heads, attn.mask
    block.attn = Int8Attention(*sizes) if integers else QuantAttention(*sizes)
    swiglu = isinstance(block.mlp, SwiGLU)
    widths = block.mlp.fc1.in_features, block.mlp.fc1.out_features
    if integers:
        parts: tuple[type[nn.Module], type[nn.Module]] = (Int8MLP, Int8SwiGLU)
    else:
        parts = (QuantMLP, QuantSwiGLU)
    block.mlp = parts[swiglu](*widths)  # type: ignore[assignment]


@torch.no_grad()
def fill_integers(block: Block, source: Block) -> None:
    """Round what a simulated block has learned into a block of integers."""
    attn, learned = block.attn, source.attn
    assert isinstance(attn, Int8Attention) and isinstance(learned, QuantAttention)
    _fill(attn.qkv, learned.qkv.input, learned.qkv)
    _fill(attn.proj, learned.proj.input, learned.proj)
    order = learned.q, learned.k, learned.v, learned.probabilities
    attn.steps.copy_(torch.cat([positive(quantizer.step) for quantizer in order]))
    mlp, network = block.mlp, source.mlp
    if isinstance(network, QuantSwiGLU):
        _fill(mlp.gate_up, network.input, network.fc1, network.fc3)
    else:
        _fill(mlp.fc1, network.fc1.input, network.fc1)
    _fill(mlp.fc2, network.fc2.input, network.fc2)


def _fill(target: Int8Linear, quantizer: Quantizer, *linears: QuantLinear) -> None:
    target.step.copy_(positive(quantizer.step))
    steps = torch.cat([positive(linear.weight_step) for linear in linears])
    weight = torch.cat([linear.weight for linear in linears])
    # As the simulation divides: by the reciprocal.
    rounded = torch.round(weight.float() * (1 / steps)[:, None]).clamp(*SIGNED)
    target.weight_step.copy_(steps)
    target.weight.copy_(rounded)
    if target.bias is not None:
        target.bias.copy_(torch.cat([linear.bias for linear in linears]))
