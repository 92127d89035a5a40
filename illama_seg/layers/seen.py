"""Masks by rows of patches: what a token sees when an image is read band by band."""

import torch
from torch import Tensor


def seen_keys(
    rows: tuple[int, int],
    width: int,
    *,
    first_key_row: int = 0,
    chunk_rows: int | None = 1,
    memory_rows: int | None = None,
    causal: bool = True,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Return the keys that the patches of some rows see.

    Row r belongs to the chunk of ``chunk_rows`` rows that starts at s. Its patches see
    the rows of their chunk and the ``memory_rows`` rows above s.

    Args:
        rows: first row of the queries, and the one after the last.
        width: patches in a row.
        first_key_row: row of the first key; the last one is that of the queries.
        chunk_rows: rows of a chunk; None for all rows.
        memory_rows: rows above a chunk that it sees; None for all.
        causal: hide what comes later in raster order, also within a chunk.
        device: of the result.

    Returns:
        (n, N) bool for n patches in ``rows`` and N from ``first_key_row`` on.
    """
    first, end = rows
    query = torch.arange(first * width, end * width, device=device)[:, None]
    key = torch.arange(first_key_row * width, end * width, device=device)
    if causal:
        seen = key <= query
    elif chunk_rows is None:
        return torch.ones(len(query), len(key), dtype=torch.bool, device=device)
    else:
        seen = key // width < (query // width // chunk_rows + 1) * chunk_rows
    if memory_rows is not None:
        start = query // width // (chunk_rows or 1) * (chunk_rows or 1)
        seen &= key // width >= start - memory_rows
    return seen


def with_class_token(seen: Tensor, width: int, memory_rows: int | None) -> Tensor:
    """Add the class token after the patches: it sees what is kept, nothing sees it.

    Args:
        seen: (N, N) bool of all patches of an image.
        width: patches in a row.
        memory_rows: last rows that it sees; None for all.

    Returns:
        (N + 1, N + 1) bool.
    """
    seen = torch.nn.functional.pad(seen, (0, 1, 0, 1))
    first = 0 if memory_rows is None else max(0, len(seen) - 1 - memory_rows * width)
    seen[-1, first:] = True
    return seen
