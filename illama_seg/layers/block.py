"""The decoder block, and by other parts the encoder block: pre-norm, residual."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from illama_seg.layers.attention import (
    attention_map,
    bidirectional_attention,
    causal_attention,
    masked_attention,
    modified_causal_attention,
    query_attention,
    renormalised_attention,
    soft_causal_attention,
)
from illama_seg.layers.linear_layer import Linear
from illama_seg.layers.mlp import MLP, MLP_RATIO
from illama_seg.layers.rotary import apply_rotary
from illama_seg.layers.swiglu import SwiGLU, swiglu_hidden_dims

NORM_EPS = 1e-6


class SoftMask(NamedTuple):
    """Rate a of the soft mask, and power b of the sums that divide its rows."""

    rate: float | Tensor
    norm: float | Tensor


Rate = float | Tensor | SoftMask
ATTENTIONS = {
    'strict': causal_attention,
    'modified': modified_causal_attention,
    'bidirectional': bidirectional_attention,
}
MASKS = ('soft', *ATTENTIONS, 'chunked')
FFNS = ('swiglu', 'mlp')
NORMS = {'rms': nn.RMSNorm, 'layer': nn.LayerNorm}


def make_norm(norm: str, embed_dims: int) -> nn.Module:
    """RMSNorm or LayerNorm, with eps 1e-6 as both models have it."""
    return NORMS[norm](embed_dims, NORM_EPS)


class Keys(NamedTuple):
    """Keys, after their rotary turn, and values of tokens: (B, h, N, d) each."""

    k: Tensor
    v: Tensor


class SelfAttention(nn.Module):
    """Multi-head self-attention with rotary positions and a mask.

    Args:
        embed_dims: channels of a token.
        num_heads: number of heads; divides ``embed_dims``.
        mask: 'soft' for Eq. 2 of arXiv 2404.06773 (the released models), 'strict'
            for Eq. 1 (LLaMA's own), 'modified' for Eq. 1 with the first token's row
            unmasked, 'bidirectional' for none, 'chunked' for one given at each call.
    """

    def __init__(self, embed_dims: int, num_heads: int, mask: str) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mask = mask
        self.impl = 'auto'  # of the soft mask; benchmarks compare them by name
        self.qkv = Linear(embed_dims, 3 * embed_dims)
        self.proj = Linear(embed_dims, embed_dims)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None,
        soft_mask_rate: Rate = 0.0,
        seen: Tensor | None = None,
        *,
        past: Keys | None = None,
        image: Keys | None = None,
    ) -> tuple[Tensor, Keys]:
        """Attend among tokens; or from queries, each alone, to an image.

        Args:
            x: (B, N, C).
            rotary: table (N, d / 2, 2), or None.
            soft_mask_rate: a of the soft mask, or a and b.
            seen: (N, P + N) bool, keys that each row sees, in place of the mask; needed
                with ``past`` and by the mask 'chunked'.
            past: keys of P tokens before.
            image: keys of the image that the queries ``x`` see besides themselves.

        Returns:
            (B, N, C), and the keys of all tokens: the P and the N, or the image's.
        """
        q, k, v = self.split_heads(self.qkv(x), rotary)
        if image is not None:
            x, keys = query_attention(q, k, v, *image), image
        else:
            if past is not None:
                k, v = torch.cat([past.k, k], dim=2), torch.cat([past.v, v], dim=2)
            x, keys = self.attend(q, k, v, soft_mask_rate, seen), Keys(k, v)
        return self.proj(x.transpose(1, 2).flatten(2)), keys

    def maps(
        self,
        x: Tensor,
        rotary: Tensor | None,
        soft_mask_rate: Rate,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights of the values for what :meth:`forward` takes.

        Returns:
            The softmax of all scores and, what ``forward`` multiplies the values by,
            the weights with the mask, (B, h, N, N) each.
        """
        q, k, _ = self.split_heads(self.qkv(x), rotary)
        attend = partial(self.attend, soft_mask_rate=soft_mask_rate, seen=seen)
        return attention_map(bidirectional_attention, q, k), attention_map(attend, q, k)

    def split_heads(
        self, qkv: Tensor, rotary: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, 3 C) -> q and k, turned, and v, (B, h, N, d) each."""
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        # Parts of a split: gradients of slices would be added up in three full tensors.
        qk, v = qkv.split((2, 1), dim=2)
        qk = qk.permute(2, 0, 3, 1, 4)
        q, k = qk if rotary is None else apply_rotary(qk, rotary)
        # A view would keep the projections of q and k until the backward pass.
        return q, k, v.squeeze(2).transpose(1, 2).contiguous()

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        soft_mask_rate: Rate,
        seen: Tensor | None = None,
    ) -> Tensor:
        """(B, h, N, d), and twice (B, h, P + N, d) -> (B, h, N, d)."""
        if seen is not None:
            return masked_attention(q, k, v, seen)
        if self.mask == 'soft':
            if isinstance(soft_mask_rate, SoftMask):
                return renormalised_attention(q, k, v, *soft_mask_rate, self.impl)
            return soft_causal_attention(q, k, v, soft_mask_rate, self.impl)
        return ATTENTIONS[self.mask](q, k, v)


class DropPath(nn.Module):
    """Drop a residual branch for whole samples (stochastic depth, arXiv 1603.09382).

    Args:
        rate: probability of dropping; survivors are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...)."""
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.size(0), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * keep.to(x.dtype).div_(1 - self.rate)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.3g}'


class Block(nn.Module):
    """``x + attn(norm1 x)``, then ``x + mlp(norm2 x)``.

    Args:
        embed_dims: channels of a token.
        num_heads: heads of the attention.
        mask: see :class:`SelfAttention`.
        drop_path_rate: stochastic depth rate of both branches.
        ffn: 'swiglu' or 'mlp'.
        norm: 'rms' or 'layer'.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mask: str,
        drop_path_rate: float,
        *,
        ffn: str = 'swiglu',
        norm: str = 'rms',
    ) -> None:
        super().__init__()
        self.norm1 = make_norm(norm, embed_dims)
        self.attn = SelfAttention(embed_dims, num_heads, mask)
        self.norm2 = make_norm(norm, embed_dims)
        self.mlp = (
            SwiGLU(embed_dims, swiglu_hidden_dims(embed_dims))
            if ffn == 'swiglu'
            else MLP(embed_dims, MLP_RATIO * embed_dims)
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(
        self,
        x: Tensor,
        rotary: Tensor | None,
        soft_mask_rate: Rate = 0.0,
        seen: Tensor | None = None,
        *,
        past: Keys | None = None,
        image: Keys | None = None,
    ) -> tuple[Tensor, Keys]:
        """(B, N, C) -> (B, N, C) and keys, see :meth:`SelfAttention.forward`."""
        out, keys = self.attn(
            self.norm1(x), rotary, soft_mask_rate, seen, past=past, image=image
        )
        x = x + self.drop_path(out)
        return x + self.drop_path(self.mlp(self.norm2(x))), keys
