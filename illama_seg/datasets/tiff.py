"""TIFF files: what their header says, and the reading of any number of bands."""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass

import numpy as np

from illama_seg.datasets.images import MAX_PIXELS
from illama_seg.errors import UserError

_WIDTH, _HEIGHT, _BITS, _BANDS, _PLANES = 256, 257, 258, 277, 284
_KIND = 254  # not 0 for a preview or a mask
_MOST_PAGES = 1 << 12
_TYPES = {1: 'B', 3: 'H', 4: 'I', 16: 'Q'}  # of the tags that are read here
_SEPARATE = 2
TIFF_PACKAGES = "tifffile imagecodecs (illama_seg's extra 'tiff')"


@dataclass(frozen=True)
class TiffHeader:
    """Layout of the first image of a TIFF file.

    Attributes:
        bands: samples of a pixel; pages of one sample and the same size count as bands.
        bits: bits of a sample.
        is_interleaved: the bands of a pixel lie side by side, in one page.
    """

    bands: int
    bits: int
    is_interleaved: bool


def tiff_header(content: bytes) -> TiffHeader | None:
    """Read the layout of a TIFF file; None for any other, or a damaged one."""
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
    is_interleaved = pages == 1 and (bands == 1 or first.get(_PLANES) != _SEPARATE)
    return TiffHeader(bands * pages, first.get(_BITS, 1), is_interleaved)


def _directory(
    content: bytes, order: str, big: bool, offset: int
) -> tuple[dict[int, int], int]:
    """Return tag -> first value of a directory, and the offset of the next one."""
    entry_bytes, word = (20, 'Q') if big else (12, 'I')
    (count,) = struct.unpack_from(order + ('Q' if big else 'H'), content, offset)
    offset += 8 if big else 2
    tags = {}
    for place in range(offset, offset + count * entry_bytes, entry_bytes):
        tag, kind, number = struct.unpack_from(order + 'HH' + word, content, place)
        if code := _TYPES.get(kind):
            place += 12 if big else 8
            if number * struct.calcsize(code) > struct.calcsize(order + word):
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
            series = file.series[0]
            axes, shape = series.axes, series.shape
            too_large = np.prod(shape, dtype=float) > 4 * MAX_PIXELS
            fits = {'Y', 'X'} <= {*axes} and len(axes) <= 3
            image = series.asarray(maxworkers=1) if fits and not too_large else None
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
