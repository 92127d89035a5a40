"""Checks of the backbone's arguments."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from illama_seg.errors import UserError


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f'ILLaMA {option}={value!r}: expected one of {choices}')


def check_frozen_stages(value: int, num_blocks: int) -> int:
    if not -1 <= value <= num_blocks:
        raise UserError(
            f'ILLaMA frozen_stages={value}: expected -1 (none), 0 (the embeddings) or '
            f'up to {num_blocks} blocks'
        )
    return value


def resolve_indices(indices: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    wanted = (indices,) if isinstance(indices, int) else indices
    if isinstance(wanted, Sequence) and all(isinstance(i, int) for i in wanted):
        resolved = tuple(i + num_layers if i < 0 else i for i in wanted)
        in_range = all(0 <= i < num_layers for i in resolved)
        if resolved and in_range and resolved == tuple(sorted(set(resolved))):
            return resolved
    raise UserError(
        f'ILLaMA out_indices={indices}: expected increasing block numbers from 0 '
        f'to {num_layers - 1} (negative ones count from the end)'
    )


def resolve_grid(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    if (
        patch_size < 1
        or len(size) != 2
        or min(size) < 1
        or any(side % patch_size for side in size)
    ):
        raise UserError(
            f'ILLaMA img_size={img_size}: expected one multiple of patch_size='
            f'{patch_size}, or two (height, width). It only sets the grid of the '
            'positional embedding: images of other sizes are taken at run time'
        )
    return size[0] // patch_size, size[1] // patch_size


def check_images(x: Tensor, in_channels: int) -> None:
    if x.ndim != 4 or x.size(1) != in_channels or 0 in x.shape[2:]:
        raise UserError(
            f'ILLaMA takes images (B, {in_channels}, H, W) with H, W >= 1, '
            f'got {tuple(x.shape)}'
        )


def check_rows(option: str, value: int | None, lowest: int = 1) -> None:
    if value is not None and (type(value) is not int or value < lowest):
        raise UserError(
            f'ILLaMA {option}={value!r}: expected an integer from {lowest} on, or None'
        )


def check_last_blocks(value: int | None, attn_mask: str, num_layers: int) -> None:
    if value is None:
        return
    if type(value) is not int or not 1 <= value <= num_layers or attn_mask != 'soft':
        raise UserError(
            f'ILLaMA soft_mask_blocks={value!r} with attn_mask={attn_mask!r}: expected '
            f"1 to {num_layers} blocks with attn_mask='soft', or None for all"
        )


def check_rotary(kind: str, img_size: Any, with_rotary: bool, head_dim: int) -> None:
    """Refuse rotary positions that have no effect, or no place."""
    if kind == 'raster' and img_size is not None:
        raise UserError(
            f"ILLaMA rotary_img_size={img_size} has no effect with rotary_grid='raster'"
            ': expected None, or another rotary_grid'
        )
    if kind != 'raster' and not with_rotary:
        raise UserError(
            f'ILLaMA rotary_grid={kind!r} has no effect with with_rotary=False: '
            "expected 'raster'"
        )
    if kind == 'axial' and head_dim % 4:
        raise UserError(
            f"ILLaMA rotary_grid='axial' with heads of {head_dim} channels: expected a "
            'multiple of 4 (embed_dims / num_heads)'
        )


def check_together(
    *,
    attn_mask: str,
    cls_position: str,
    pos_axes: str,
    chunk_rows: int | None,
    memory_rows: int | None,
    num_queries: int,
    out_type: str,
) -> None:
    """Refuse arguments that exclude each other."""
    check_rows('chunk_rows', chunk_rows)
    check_rows('memory_rows', memory_rows, 0)
    if attn_mask == 'modified' and cls_position == 'last':
        raise UserError(
            "ILLaMA attn_mask='modified' unmasks a class token at the start: use "
            "it with cls_position='first'; 'strict' hides nothing from the last"
        )
    rules = {
        f'chunk_rows={chunk_rows}': (
            chunk_rows is None or attn_mask == 'chunked',
            "attn_mask='chunked'",
        ),
        f'memory_rows={memory_rows}': (
            memory_rows is None
            or attn_mask == 'strict'
            or (attn_mask == 'chunked' and chunk_rows is not None),
            "attn_mask='strict', or 'chunked' with a number of chunk_rows",
        ),
        f'num_queries={num_queries}': (
            num_queries == 0
            or (
                type(num_queries) is int
                and num_queries > 0
                and out_type == 'featmap'
                and attn_mask != 'modified'
            ),
            "0 or more, out_type='featmap' and another attn_mask than 'modified'",
        ),
        f'num_queries={num_queries} with memory_rows=0': (
            num_queries == 0 or memory_rows != 0,
            'memory_rows of 1 or more: queries read what is kept',
        ),
    }
    last = (
        attn_mask == 'chunked',
        memory_rows is not None,
        num_queries,
        pos_axes == 'columns',
    )
    if cls_position == 'first' and any(last):
        raise UserError(
            "ILLaMA cls_position='first': the mask 'chunked', memory_rows, num_queries "
            "and pos_axes='columns' need cls_position='last'"
        )
    for argument, (holds, expected) in rules.items():
        if not holds:
            raise UserError(f'ILLaMA {argument}: expected {expected}')
