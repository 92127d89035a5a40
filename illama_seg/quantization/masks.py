"""Masks of the attention as N x N matrices, before and after the softmax."""

import torch
from torch import Tensor


def mask_rows(
    mask: str, rate: float, rows: range, n: int, device: torch.device | str = 'cpu'
) -> tuple[Tensor | None, Tensor | None]:
    """Return the hidden positions of a block of rows, and their factors.

    softmax(scores, -inf where hidden) * factor are the weights of the values, as
    layers/attention.py has it for each mask.

    Args:
        mask: a name of `illama_seg.layers.MASKS`.
        rate: share of the future that the mask 'soft' lets through.
        rows: the block.
        n: number of tokens.
        device: of the matrices.

    Returns:
        hidden (rows, n), True where the scores are -inf, and factor (rows, n) in
        float32; None for nothing to do.
    """
    if mask == 'bidirectional' or (mask == 'soft' and rate == 1):
        return None, None
    future = torch.ones(len(rows), n, dtype=torch.bool, device=device)
    future = future.triu_(rows.start + 1)
    if mask == 'soft':
        # Not renormalised: rows need not sum to one.
        return None, torch.ones_like(future, dtype=torch.float32).masked_fill_(
            future, rate
        )
    if mask == 'modified' and rows.start == 0:
        future[0] = False
    return future, None
