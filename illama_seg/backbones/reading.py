"""Images read in bands of rows, and the questions that are asked of a reading.

Image tokens never see what comes after them, so their keys and values can be kept: the
next band of rows goes on from there, and queries read them later. A query is another
class token: see :meth:`illama_seg.backbones.ILLaMA.ask`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from illama_seg.backbones.sequence import (
    as_map,
    class_token,
    mask_of_band,
    needs_height,
    rotary_of,
    run_block,
    with_positions,
)
from illama_seg.errors import UserError
from illama_seg.layers import Keys, join_class_slot


@dataclass(frozen=True, eq=False)
class Reading:
    """An image, or its rows so far, as its backbone has read it.

    Attributes:
        backbone: that has read it.
        keys: of every block: keys after the rotary turn, and values, (B, h, N, d) each,
            of the patches of the last ``kept_rows`` rows.
        rows: number of rows of patches read.
        width: patches in a row.
        total_rows: rows of the whole image, None if that is not known.
        maps: (B, C, h, w) of the band that was read last, one for each out index.
        is_complete: no more rows can follow.
    """

    backbone: Any
    keys: tuple[Keys, ...]
    rows: int
    width: int
    total_rows: int | None
    maps: tuple[Tensor, ...]
    is_complete: bool = False

    @property
    def kept_rows(self) -> int:
        """Number of rows whose keys are kept."""
        return self.keys[0].k.shape[2] // self.width


def read(
    backbone: Any,
    images: Tensor,
    reading: Reading | None = None,
    total_rows: int | None = None,
) -> Reading:
    """Read an image or a band of it, see :meth:`ILLaMA.read`."""
    patch = backbone.patch_embed.proj.stride[0]
    height = images.shape[2]
    x, (rows, width) = backbone.patch_embed(images)
    first = reading.rows if reading else 0
    _check_total(reading, total_rows)
    is_whole = reading is None and total_rows in (None, rows)
    if reading:
        total_rows = reading.total_rows
    elif is_whole and needs_height(backbone):
        total_rows = rows
    is_whole_band = height % patch == 0
    band = first, rows, width, is_whole_band
    _check_band(backbone, reading, x, band, total_rows)
    x = with_positions(backbone, x, width, first, total_rows)
    # Eq. 2 and a bidirectional mask read the class token too.
    has_class_token = backbone.attn_mask in ('soft', 'bidirectional')
    if has_class_token:
        cls_token = class_token(backbone).expand(len(x), -1, -1)
        x = join_class_slot(x, cls_token, 'last')
    grid = total_rows or first + rows, width
    position = 'last' if has_class_token else None
    rotary = rotary_of(backbone, (first, first + rows), grid, x.device, position)
    memory, seen = backbone.memory_rows, None
    is_plain = backbone.attn_mask == 'strict' and reading is None and memory is None
    if not (has_class_token or is_plain):  # else a block has its own mask
        kept_from = first - reading.kept_rows if reading else 0
        between = first, first + rows
        seen = mask_of_band(backbone, between, width, x.device, kept_from)
    maps, kept = [], []
    pasts = reading.keys if reading else [None] * len(backbone.blocks)
    for index, (block, past) in enumerate(zip(backbone.blocks, pasts, strict=True)):
        rate = backbone.soft_mask(index)
        x, keys = run_block(backbone, block, x, rotary, rate, seen, past=past)
        if has_class_token:
            keys = Keys(*(part[:, :, :-1] for part in keys))
        if memory is not None:
            forgotten = max(0, keys.k.size(2) - memory * width)
            if forgotten:  # a copy: a part would hold on to all of it
                keys = Keys(*(part[:, :, forgotten:].clone() for part in keys))
        kept.append(keys)
        if index in backbone.out_indices:
            patches = x[:, : rows * width]
            maps.append(as_map(patches, (rows, width)))
    is_last = not is_whole_band or first + rows == total_rows
    if backbone.attn_mask == 'chunked' and backbone.chunk_rows:
        is_last |= (first + rows) % backbone.chunk_rows > 0
    return Reading(
        backbone, tuple(kept), first + rows, width, total_rows, tuple(maps), is_last
    )


def ask(reading: Reading, offsets: Tensor) -> Tensor:
    """Ask queries of a reading, see :meth:`ILLaMA.ask`."""
    backbone, width = reading.backbone, reading.width
    batch = reading.keys[0].k.size(0)
    x = (class_token(backbone) + offsets).expand(batch, -1, -1)
    end = reading.rows, reading.rows
    rotary = rotary_of(backbone, end, (reading.rows, width), x.device, 'last')
    for block, keys in zip(backbone.blocks, reading.keys, strict=True):
        x, _ = run_block(backbone, block, x, rotary, 0.0, image=keys)
    return x


def _check_band(
    backbone: Any,
    reading: Reading | None,
    x: Tensor,
    band: tuple[int, int, int, bool],
    total_rows: int | None,
) -> None:
    """Refuse what cannot be read.

    Raises:
        UserError: says why.
    """
    first, rows, width, is_whole_band = band
    if backbone.cls_position != 'last' or backbone.attn_mask == 'modified':
        raise UserError(
            'a reading is of patches that see no class token before them: use cls_'
            "position='last' and another attn_mask than 'modified'"
        )
    in_parts = reading is not None or total_rows not in (None, rows)
    reason = {
        'soft': 'its denominators read the whole image (Eq. 2)',
        'bidirectional': 'every patch sees the whole image',
    }.get(backbone.attn_mask)
    if in_parts and reason:
        raise UserError(
            f'attn_mask={backbone.attn_mask!r} cannot be read in bands: {reason}. Use '
            "'strict' or 'chunked', or read the whole image at once"
        )
    if reading is not None and reading.is_complete:
        raise UserError(
            f'the image was read to its end ({first} rows of patches): expected '
            'reading=None for another image; for one that comes in bands, total_rows '
            'with the first, and whole patches in all but the last'
        )
    if total_rows is not None and first + rows > total_rows:
        raise UserError(
            f'the image has {total_rows} rows of patches, and {first} were read: a '
            f'band of {rows} more does not fit; expected {total_rows - first} or fewer'
        )
    chunk = backbone.chunk_rows
    if in_parts and backbone.attn_mask == 'chunked':
        is_last = total_rows in (None, first + rows) or not is_whole_band
        if chunk is None or ((first + rows) % chunk and not is_last):
            raise UserError(
                f'bands of the mask chunked are whole chunks, chunk_rows={chunk}, but '
                f'for the last one: {first} rows of patches were read before, and this '
                f'band has {rows}'
            )
    if reading is None:
        return
    if reading.backbone is not backbone:
        raise UserError(
            'reading= is of another backbone: expected one of this backbone, or None'
        )
    batch = reading.keys[0].k.size(0)
    if (len(x), width) != (batch, reading.width):
        raise UserError(
            f'a band of {len(x)} images of {width} patches a row does not continue a '
            f'reading of {batch} images of {reading.width}'
        )


def _check_total(reading: Reading | None, total_rows: Any) -> None:
    """Refuse a number of rows that is none, or another than before.

    Raises:
        UserError: names both.
    """
    if total_rows is None:
        return
    if type(total_rows) is not int or total_rows < 1:
        raise UserError(f'total_rows={total_rows!r}: expected an integer from 1 on')
    if reading is not None and total_rows != reading.total_rows:
        raise UserError(
            f'total_rows={total_rows}, but the first band was of an image of '
            f'{reading.total_rows}: expected the same, or None'
        )
