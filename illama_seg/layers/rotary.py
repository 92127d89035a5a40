"""Rotary position embedding over the token sequence, in real arithmetic."""

import functools
from typing import Any

import torch
from torch import Tensor

from illama_seg.errors import UserError

ROTARY_GRIDS = ('raster', 'scaled', 'neighbour', 'axial')


def rotary_table(
    num_tokens: int,
    head_dim: int,
    device: torch.device | str = 'cpu',
    first: int = 0,
) -> Tensor:
    """Cosines and sines of the rotation angles, kept for the next call of this size.

    Position n turns channel pair i by ``n * 10000 ** (-2 i / head_dim)`` radians
    (RoFormer, arXiv 2104.09864).

    Args:
        num_tokens: number of tokens.
        head_dim: channels of a head.
        device: of the table.
        first: position of the first token.

    Returns:
        (num_tokens, head_dim / 2, 2) in float32: cosine and sine of each.

    Raises:
        UserError: if ``head_dim`` is odd.
    """
    if head_dim % 2:
        raise UserError(f'rotary embedding needs an even head_dim, got {head_dim}')
    if torch.compiler.is_compiling():
        return _make_table(num_tokens, head_dim, device, first)
    return _kept_table(num_tokens, head_dim, device, first)


def grid_table(
    kind: str,
    rows: tuple[int, int],
    grid: tuple[int, int],
    train_grid: tuple[int, int],
    *,
    head_dim: int,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Cosines and sines of the patches of some rows, placed on the training grid.

    Of the patch in row r and column c of H x W patches, for a training on H0 x W0:
    'scaled' has the position ``W0 (r H0 / H) + c W0 / W``, 'neighbour' ``W0 r + c``.
    'axial' has two: half of the channel pairs are turned by ``r H0 / H``, the others by
    ``c W0 / W``, each with angles of its own (VisionLLaMA, arXiv 2403.00522). On the
    training grid 'scaled' and 'neighbour' are the raster order.

    Args:
        kind: 'scaled', 'neighbour' or 'axial'.
        rows: first row, and the one after the last.
        grid: (H, W), patches of the whole image.
        train_grid: (H0, W0).
        head_dim: channels of a head; a multiple of 4 for 'axial'.
        device: of the table.

    Returns:
        (n, head_dim / 2, 2) in float32 for n patches, in raster order.
    """
    make = _grid_table if torch.compiler.is_compiling() else _kept_grid_table
    return make(kind, rows, grid, train_grid, head_dim, device)


def class_table(
    kind: str,
    train_grid: tuple[int, int],
    *,
    head_dim: int,
    device: torch.device | str = 'cpu',
) -> Tensor:
    """Cosines and sines of a class token, (1, head_dim / 2, 2).

    It is turned as the one of the training, at ``H0 W0``; of 'axial' not at all.
    """
    place = 0 if kind == 'axial' else train_grid[0] * train_grid[1]
    return rotary_table(1, head_dim, device, place)


def _grid_table(
    kind: str,
    rows: tuple[int, int],
    grid: tuple[int, int],
    train_grid: tuple[int, int],
    head_dim: int,
    device: torch.device | str,
) -> Tensor:
    row = torch.arange(*rows, device=device).float()[:, None]
    column = torch.arange(grid[1], device=device).float()[None]
    if kind == 'neighbour':
        return _angles_table([train_grid[1] * row + column], head_dim)
    row = row * (train_grid[0] / grid[0])
    column = column * (train_grid[1] / grid[1])
    if kind == 'scaled':
        return _angles_table([train_grid[1] * row + column], head_dim)
    none = torch.zeros_like(row + column)
    return _angles_table([row + none, column + none], head_dim)


def _angles_table(axes: list[Tensor], head_dim: int) -> Tensor:
    """Positions of each axis -> table; the axes share the channel pairs."""
    share = head_dim // len(axes)
    channels = torch.arange(0, share, 2, device=axes[0].device).float()
    frequencies = 10000.0 ** (-channels / share)
    angles = torch.cat([axis.flatten()[:, None] * frequencies for axis in axes], dim=1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def _make_table(
    num_tokens: int, head_dim: int, device: torch.device | str, first: int
) -> Tensor:
    positions = torch.arange(first, first + num_tokens, device=device).float()
    return _angles_table([positions], head_dim)


# Not a buffer of the model: averaged copies of a model (EMA) need buffers of one size.
@functools.lru_cache(maxsize=32)
def _kept_table(
    num_tokens: int, head_dim: int, device: torch.device | str, first: int
) -> Tensor:
    # It serves calls that may train: no inference tensor, then.
    with torch.inference_mode(False):
        return _make_table(num_tokens, head_dim, device, first)


@functools.lru_cache(maxsize=32)
def _kept_grid_table(*arguments: Any) -> Tensor:
    with torch.inference_mode(False):
        return _grid_table(*arguments)


def apply_rotary(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the channel pairs of queries or keys.

    The pairs are adjacent channels (2i, 2i + 1), as in Meta's LLaMA; Hugging Face's
    port pairs channel i with i + d / 2 instead, which is another function.

    Args:
        x: (..., N, d).
        table: (N, d / 2, 2) from :func:`rotary_table`.

    Returns:
        (..., N, d) in the dtype of ``x``; the products are taken in float32 or wider.
    """
    wide = torch.promote_types(x.dtype, table.dtype)
    pairs, table = x.to(wide).unflatten(-1, (-1, 2)), table.to(wide)
    if _are_complex_numbers(pairs):
        turned = torch.view_as_complex(pairs) * torch.view_as_complex(table)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    (even, odd), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _are_complex_numbers(pairs: Tensor) -> bool:
    """Return True if one complex product can replace the six strided passes.

    It computes the same products and sums in less than half the time. Compilers fuse
    the six passes and do not know complex numbers.
    """
    if torch.compiler.is_compiling() or pairs.device.type not in ('cpu', 'cuda'):
        return False
    *steps, last = *pairs.stride()[:-1], pairs.storage_offset(), pairs.stride(-1)
    return last == 1 and all(step % 2 == 0 for step in steps)
