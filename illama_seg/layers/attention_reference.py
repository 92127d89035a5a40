"""Attention of the soft mask by its formula. Shape letters: attention.py."""

import torch
from torch import Tensor


def reference_attention(q: Tensor, k: Tensor, v: Tensor, rate: Tensor) -> Tensor:
    """(softmax(q k^T / sqrt d) * S) v by the formula, with an N x N matrix."""
    n = q.shape[2]
    past = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    rate = rate.to(q.device, q.dtype)
    mask = torch.where(past, torch.ones_like(rate), rate)
    weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
    # Not renormalised: the mask multiplies the softmax, rows need not sum to one.
    return (weights * mask) @ v
