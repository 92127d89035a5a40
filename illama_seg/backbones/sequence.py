"""Positions, masks and maps of the sequence of patches."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from illama_seg.layers import (
    Keys,
    class_table,
    grid_table,
    resize_pos_embed,
    rotary_table,
    seen_keys,
    with_class_token,
)


def positions(backbone: Any, grid: tuple[int, int]) -> Tensor:
    """Return the learnable positions of a grid (h, w): (1, h * w + 1, C)."""
    learnt = backbone.pos_embed, backbone.grid_size
    if backbone.pos_axes == 'grid':
        return resize_pos_embed(*learnt, grid, backbone.cls_position)
    row = resize_pos_embed(*learnt, (1, grid[1]))
    return torch.cat([row[:, :-1].repeat(1, grid[0], 1), row[:, -1:]], dim=1)


def has_row_positions(backbone: Any) -> bool:
    """Return whether a learnable position depends on the number of rows."""
    return backbone.pos_embed is not None and backbone.pos_axes == 'grid'


def needs_height(backbone: Any) -> bool:
    """Return whether any position depends on the number of rows."""
    scaled = backbone.with_rotary and backbone.rotary_grid in ('scaled', 'axial')
    return scaled or has_row_positions(backbone)


def with_positions(
    backbone: Any, x: Tensor, width: int, first: int = 0, total_rows: int | None = None
) -> Tensor:
    """Add learnable positions, if there are any, to the patches of a band.

    Args:
        backbone: whose.
        x: (B, rows * width, C), embedded patches.
        width: patches in a row.
        first: first row of the band.
        total_rows: rows of the whole image; by default the band's.

    Returns:
        (B, rows * width, C).
    """
    if backbone.pos_embed is None:
        return x
    if not has_row_positions(backbone):
        first, total_rows = 0, None
    grid = total_rows or x.size(1) // width, width
    patches = positions(backbone, grid)[:, :-1]  # without the class token's
    return x + patches[:, first * width : first * width + x.size(1)]


def class_token(backbone: Any) -> Tensor:
    """Return the class token with its learnable position, (1, 1, C)."""
    if backbone.pos_embed is None:
        return backbone.cls_token
    return backbone.cls_token + backbone.pos_embed[:, -1:]


def rotary_of(
    backbone: Any,
    rows: tuple[int, int],
    grid: tuple[int, int],
    device: torch.device,
    cls_position: str | None = None,
) -> Tensor | None:
    """Return the rotary table of the patches of some rows, if there is one.

    Args:
        backbone: whose.
        rows: first row, and the one after the last.
        grid: (rows, columns) of the whole image.
        device: of the table.
        cls_position: 'first' or 'last' where a class token is among them, else None.

    Returns:
        (n, d / 2, 2) for n tokens.
    """
    if not backbone.with_rotary:
        return None
    head_dim = backbone.embed_dims // backbone.num_heads
    kind = backbone.rotary_grid
    if kind == 'raster':
        count = (rows[1] - rows[0]) * grid[1] + (cls_position is not None)
        return rotary_table(count, head_dim, device, rows[0] * grid[1])
    trained, options = backbone.train_grid, dict(head_dim=head_dim, device=device)
    patches = grid_table(kind, rows, grid, trained, **options)
    if cls_position is None:
        return patches
    token = class_table(kind, trained, **options)
    parts = [patches, token] if cls_position == 'last' else [token, patches]
    return torch.cat(parts)


def mask_of_band(
    backbone: Any,
    rows: tuple[int, int],
    width: int,
    device: torch.device,
    first_key_row: int = 0,
) -> Tensor:
    """Return what the patches of some rows see, see :func:`seen_keys`."""
    is_strict = backbone.attn_mask == 'strict'
    return seen_keys(
        rows,
        width,
        first_key_row=first_key_row,
        chunk_rows=1 if is_strict else backbone.chunk_rows,
        memory_rows=backbone.memory_rows,
        causal=is_strict,
        device=device,
    )


def mask_of_image(
    backbone: Any, grid: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Return the mask of a whole image, or None where the blocks have their own."""
    is_plain = backbone.attn_mask == 'strict' and backbone.memory_rows is None
    if is_plain or backbone.attn_mask not in ('strict', 'chunked'):
        return None
    seen = mask_of_band(backbone, (0, grid[0]), grid[1], device)
    return with_class_token(seen, grid[1], backbone.memory_rows)


def run_block(
    backbone: Any, block: Any, x: Tensor, *inputs: Any, **keys: Keys | None
) -> tuple[Tensor, Keys]:
    """Run a block; recompute it in the backward pass where the backbone says so."""
    if backbone.with_cp and x.requires_grad:
        again: Any = checkpoint
        return again(block, x, *inputs, use_reentrant=False, **keys)
    return block(x, *inputs, **keys)


def as_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, h * w, C) -> (B, C, h, w)."""
    maps = patches.transpose(1, 2).unflatten(2, grid)
    # Convolutions train faster in this layout; at inference they do not.
    return maps.contiguous() if torch.is_grad_enabled() else maps
