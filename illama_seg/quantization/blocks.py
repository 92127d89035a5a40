"""Attention and feed-forward network in simulated 8 bits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from illama_seg.layers import MLP, SelfAttention, SoftMask, SwiGLU
from illama_seg.quantization.masks import mask_matrices
from illama_seg.quantization.quantizer import Quantizer, QuantLinear

Rate = float | Tensor | SoftMask


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

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        soft_mask_rate: Rate,
        seen: Tensor | None = None,
    ) -> Tensor:
        """(B, h, N, d), and twice (B, h, P + N, d) -> (B, h, N, d)."""
        q, k, v = self.q(q), self.k(k), self.v(v)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        n, device = q.shape[2], q.device
        rate, norm = (
            soft_mask_rate
            if isinstance(soft_mask_rate, SoftMask)
            else (soft_mask_rate, None)
        )
        hidden, factor = (
            mask_matrices(self.mask, rate, n, device) if seen is None else (~seen, None)
        )
        if hidden is not None:
            scores = scores.masked_fill(hidden, float('-inf'))
        weights = scores.softmax(-1)
        if factor is not None:
            weights = weights * factor
        if norm is not None:
            weights = weights / weights.sum(-1, keepdim=True) ** norm
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


def make_quantized(block: Any) -> None:
    """Give a block parts in 8 bits instead of its own, their weights still unset."""
    attn, fc1 = block.attn, block.mlp.fc1
    block.attn = QuantAttention(attn.qkv.in_features, attn.num_heads, attn.mask)
    kind = QuantSwiGLU if isinstance(block.mlp, SwiGLU) else QuantMLP
    block.mlp = kind(fc1.in_features, fc1.out_features)
