"""TIFF files: what their header says, and the reading of any number of bands."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from illama_seg.datasets.images import MAX_PIXELS
from illama_seg.errors import UserError

# Tags of a directory. The kind of a page is not 0 for a preview or a mask.
_KIND, _WIDTH, _HEIGHT, _BITS, _COLOURS = 254, 256, 257, 258, 262
_BANDS, _PLANES, _EXTRA = 277, 284, 338
_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # of the tags that are read here
_GREY, _RGB, _SEPARATE, _ALPHA = (0, 1), 2, 2, 2
_MOST_PAGES, _MOST_TAGS = 1 << 8, 1 << 10
TIFF_PACKAGES = "tifffile imagecodecs (illama_seg's extra 'tiff')"


@dataclass(frozen=True)
class TiffHeader:
    """Content of a TIFF file by its header.

    Attributes:
        bands: samples of a pixel; pages of one sample and the same size count as bands.
        bits: bits of a sample.
        obstacle: what OpenCV, without a word, leaves out or mixes up; '' for nothing.
        has_alpha: OpenCV multiplies the three colours by the fourth band.
    """

    bands: int
    bits: int
    obstacle: str = ''
    has_alpha: bool = False


def tiff_header(content: bytes) -> TiffHeader | None:
    """Read the header of a TIFF file; None for any other, or a damaged one."""
    order = {b'II': '<', b'MM': '>'}.get(content[:2])
    try:
        if order is None:
            return None
        (version,) = struct.unpack_from(order + 'H', content, 2)
        if version not in (42, 43):
            return None
        big = version == 43
        place = (order + 'Q', 8) if big else (order + 'I', 4)
        (offset,) = struct.unpack_from(place[0], content, place[1])
        first, offset = _directory(content, order, big, offset)
        bands, pages = first.get(_BANDS, 1), 1
        while bands == 1 and offset and pages < _MOST_PAGES:
            page, offset = _directory(content, order, big, offset)
            same = all(page.get(side) == first.get(side) for side in (_WIDTH, _HEIGHT))
            pages += same and not page.get(_KIND)
    except struct.error:
        return None
    bits = first.get(_BITS, 1)
    obstacle = f'{pages} pages' if pages > 1 else _obstacle(bands, bits, first)
    has_alpha = bands == 4 and bits == 8 and first.get(_EXTRA) == _ALPHA
    return TiffHeader(bands * pages, bits, obstacle, has_alpha)


def _obstacle(bands: int, bits: int, tags: dict[int, int]) -> str:
    """Return what OpenCV would do wrong with the bands of a page."""
    if bands == 1:
        return ''
    if bands not in (3, 4):
        return f'{bands} bands'
    if tags.get(_COLOURS) in _GREY:
        return f'{bands} bands that are no colours'
    is_photo = bands == 3 and bits == 8 and tags.get(_COLOURS) == _RGB
    if tags.get(_PLANES) == _SEPARATE and not is_photo:
        return f'{bands} bands in planes of their own'
    return ''


def _directory(
    content: bytes, order: str, big: bool, offset: int
) -> tuple[dict[int, int], int]:
    """Return tag -> first value of a directory, and the offset of the next one."""
    entry_bytes, word = (20, 'Q') if big else (12, 'I')
    (count,) = struct.unpack_from(order + ('Q' if big else 'H'), content, offset)
    offset += 8 if big else 2
    tags = {}
    for number in range(min(count, _MOST_TAGS)):
        place = offset + number * entry_bytes
        tag, kind, length = struct.unpack_from(order + 'HH' + word, content, place)
        if code := _TYPES.get(kind):
            place += 12 if big else 8
            if length * struct.calcsize(code) > struct.calcsize(order + word):
                (place,) = struct.unpack_from(order + word, content, place)
            (tags[tag],) = struct.unpack_from(order + code, content, place)
    (following,) = struct.unpack_from(
        order + word, content, offset + count * entry_bytes
    )
    return tags, following


def read_tiff(path: str | os.PathLike, content: bytes) -> np.ndarray:
    """Decode a TIFF file by tifffile: (H, W), or (H, W, bands) in the file's order.

    The bands may lie side by side, in planes or in pages.

    Raises:
        UserError: if tifffile is not installed, or the file is damaged, no TIFF, too
            large, or no image of rows and columns.
    """
    try:
        import tifffile
    except ImportError as error:
        raise UserError(
            f"{path}: imdecode_backend='tifffile' needs tifffile: pip install "
            f'{TIFF_PACKAGES}'
        ) from error
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series: Any = file.series[0]
            axes, shape = series.axes, series.shape
            pages = [page for page in file.pages if not getattr(page, 'subfiletype', 0)]
            if axes == 'YX' and len(pages) > 1 and all(p.shape == shape for p in pages):
                axes, shape = 'QYX', (len(pages), *shape)
            fits = {'Y', 'X'} <= {*axes} and len(axes) <= 3
            too_large = np.prod(shape, dtype=float) > 4 * MAX_PIXELS
            if not fits or too_large:
                image = None
            elif series.shape == shape:
                image = series.asarray(maxworkers=1)
            else:
                image = np.stack([page.asarray(maxworkers=1) for page in pages])
    except Exception as error:  # a damaged file may raise anything
        reason = str(error) or type(error).__name__
        cure = ': pip install imagecodecs' if 'imagecodecs' in reason else ''
        raise UserError(
            f'{path} ({len(content):,} bytes) cannot be read by tifffile: '
            f'{reason}{cure}'
        ) from error
    if image is None:
        limit = f'at most {4 * MAX_PIXELS:,} values' if fits else 'rows, columns, bands'
        raise UserError(f'{path} has the shape {shape} ({axes}): expected {limit}')
    image = np.moveaxis(image, (axes.index('Y'), axes.index('X')), (0, 1))
    # torch takes neither another machine's byte order nor reversed axes.
    return np.ascontiguousarray(image, image.dtype.newbyteorder('='))
