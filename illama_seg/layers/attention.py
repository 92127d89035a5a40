"""The three attention masks of iLLaMA (arXiv 2404.06773, Eq. 1 and 2).

Shapes: B batch, h heads, N tokens, d channels of a head.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_causal_attention(q: Tensor, k: Tensor, v: Tensor, rate: float) -> Tensor:
    """Soft-mask attention, Eq. 2: ``(softmax(q k^T / sqrt(d)) * S) v``.

    ``S`` is 1 on and below the diagonal and ``rate`` above it. The rows are not
    renormalised after the mask: the softmax denominator keeps every token, the
    future ones too. So rate 0 is not what ``is_causal=True`` computes.

    Args:
        q, k, v: (B, h, N, d).
        rate: soft mask rate in [0, 1]; 0 is causal, 1 bidirectional.

    Returns:
        (B, h, N, d).
    """
    if rate == 1:
        return F.scaled_dot_product_attention(q, k, v)
    num_tokens = q.size(-2)
    past = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=q.device).tril()
    mask = torch.full_like(past, rate, dtype=q.dtype).masked_fill_(past, 1)
    with _no_autocast(q.device.type):
        weights = (q @ k.transpose(-2, -1) * q.size(-1) ** -0.5).softmax(-1)
        return (weights * mask) @ v


def _no_autocast(device_type: str) -> AbstractContextManager:
    """Autocast would make N x N matrices in float32 between the two products."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Strict causal attention, Eq. 1: future tokens are out of the softmax too.

    Args:
        q, k, v: (B, h, N, d).

    Returns:
        (B, h, N, d).
    """
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)
