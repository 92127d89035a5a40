"""The masks of the attention as matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def mask_matrices(
    mask: str, rate: float | Tensor, n: int, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return the hidden positions and the factors of an attention.

    softmax(scores, -inf where hidden) * factor are the weights of the values, as
    layers/attention.py has it for each mask.

    Args:
        mask: a name of `illama_seg.layers.MASKS`.
        rate: share of the future that the mask 'soft' lets through.
        n: number of tokens.
        device: of the matrices.

    Returns:
        hidden (n, n), True where the scores are -inf, and factor (n, n) in float32;
        None for nothing to do.
    """
    if mask == 'bidirectional':
        return None, None
    future = torch.ones(n, n, dtype=torch.bool, device=device).triu(1)
    if mask == 'soft':
        # Not renormalised: rows need not sum to one.
        share = torch.as_tensor(rate, dtype=torch.float32, device=device)
        return None, torch.where(future, share, torch.ones_like(share))
    if mask == 'modified':
        future = future & (torch.arange(n, device=device) > 0)[:, None]
    return future, None
