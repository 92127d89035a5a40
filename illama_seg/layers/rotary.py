"""Rotary position embedding over the token sequence, in real arithmetic."""

import torch
from torch import Tensor


def rotary_table(num_tokens: int, head_dim: int, theta: float = 10000.0) -> Tensor:
    """Cosines and sines of the rotation angles.

    Position n turns channel pair i by ``n * theta ** (-2 i / head_dim)`` radians
    (RoFormer, arXiv 2104.09864).

    Returns:
        (2, num_tokens, head_dim / 2) in float32: cosines, then sines.

    Raises:
        ValueError: if ``head_dim`` is odd.
    """
    if head_dim % 2:
        raise ValueError(f'rotary embedding needs an even head_dim, got {head_dim}')
    frequencies = theta ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.arange(num_tokens).float()[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the channel pairs of queries or keys.

    The pairs are adjacent channels (2i, 2i + 1), as in Meta's LLaMA; Hugging Face's
    port pairs channel i with i + d / 2 instead, which is another function.

    Args:
        x: (..., N, d).
        table: (2, N, d / 2) from :func:`rotary_table`.

    Returns:
        (..., N, d) in the dtype of ``x``; the products are taken in float32 or wider.
    """
    cos, sin = table
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return rotated.flatten(-2).to(x.dtype)
