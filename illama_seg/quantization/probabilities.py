"""Softmax and mask between the two products of the attention, for blocks of rows."""

import torch
from torch import Tensor


def probabilities(scores: Tensor, mask: str, rate: float, start: int = 0) -> Tensor:
    """What multiplies the values, as layers/attention.py has it, from an N x N matrix.

    In place, where no gradient is wanted.

    Args:
        scores: (..., rows, N), q k^T / sqrt d of the rows from ``start`` on.
        mask: a name of `illama_seg.layers.MASKS`.
        rate: share of the future that the mask 'soft' lets through.
        start: number of the first row.

    Returns:
        (..., rows, N), not negative; of the mask 'soft' rows need not sum to one.
    """
    rows, n = scores.shape[-2:]
    inplace = not scores.requires_grad
    # The first key that a row does not see.
    future = torch.ones(rows, n, dtype=torch.bool, device=scores.device)
    future = future.triu_(start + 1)
    if mask == 'modified' and start == 0:
        future[0] = False
    if mask in ('strict', 'modified'):
        hide = scores.masked_fill_ if inplace else scores.masked_fill
        scores = hide(future, float('-inf'))
    weights = torch.softmax(scores, -1, out=scores) if inplace else scores.softmax(-1)
    if mask != 'soft' or rate == 1:
        return weights
    factor = torch.ones(rows, n, dtype=weights.dtype, device=weights.device)
    factor = factor.masked_fill_(future, rate)
    return weights.mul_(factor) if inplace else weights * factor
