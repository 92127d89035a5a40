"""Refuse an image by the size in its header, before memory is allocated for it."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import unpack
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from illama_seg.errors import UserError

VARIABLE = 'OPENCV_IO_MAX_IMAGE_PIXELS'  # set by illama_seg.integrations.opencv
_SET = os.environ.get(VARIABLE, '')
# For example 23,170 x 23,170: 1.6 GB as three channels of 8 bits.
MAX_PIXELS = int(_SET) if _SET.isdecimal() else 2**29
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers that no length follows
_JPEG_MARKER = re.compile(rb'\xff([^\0\xff])')
_TIFF_TYPES = {1: 'B', 3: 'H', 4: 'I', 6: 'b', 8: 'h', 9: 'i', 16: 'Q', 17: 'q'}
_TIFF_BYTES = {'B': 1, 'H': 2, 'I': 4, 'Q': 8}


def check_image(
    path: str | os.PathLike, content: bytes | None = None, is_known: bool = False
) -> None:
    """Refuse an image whose header declares more than ``MAX_PIXELS`` pixels.

    OpenCV's environment variable sets another limit.

    Args:
        path: path of the image; without content, a file elsewhere is not checked.
        content: content of the file, if it was read already.
        is_known: also refuse an image without a readable header. OpenCV, which has
            formats of its own, may be about to decode it.

    Raises:
        UserError: names the file, the size found, the limit and the fix.
    """
    if content is None and not os.path.isfile(path):
        return
    with (
        bombs_refused(path),
        open(path, 'rb') if content is None else io.BytesIO(content) as file,
    ):
        size = declared_size(file)
        num_bytes = file.seek(0, os.SEEK_END)
    if size is not None and _area(size) > MAX_PIXELS:
        raise _too_big(path, f'{size[0]:,} x {size[1]:,} pixels')
    if size is None and is_known:
        raise UserError(
            f'{path} ({num_bytes:,} bytes) is damaged or no image of a known format: '
            'no width and height are in its header. Expected PNG, JPEG, TIFF, WebP or '
            'BMP'
        )


@contextmanager
def bombs_refused(path: str | os.PathLike) -> Iterator[None]:
    """Name the file if Pillow itself refuses its number of pixels.

    Raises:
        UserError: as ``check_image``.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_big(path, 'more than Pillow accepts') from error


def _too_big(path: str | os.PathLike, found: str) -> ValueError:
    return UserError(
        f'{path} was not decoded: its header says {found}, the limit is '
        f'{MAX_PIXELS:,} pixels. A small file that says so is made to fill the memory; '
        f'for a real image set {VARIABLE} in the environment to its number of pixels'
    )


def open_image(path: str | Path) -> Image.Image:
    """Open an image by Pillow without decoding it, after :func:`check_image`.

    Decode it within :func:`bombs_refused`: a frame of a GIF may be larger than its
    header says.
    """
    check_image(path)
    with bombs_refused(path):
        return Image.open(path)


def declared_size(file: BinaryIO) -> tuple[int, int] | None:
    """Return the (height, width) that a header declares; None without a readable one.

    Decoders differ in which of several sizes they use: the largest is returned. PNG,
    JPEG, TIFF, WebP, BMP and GIF are read here, since Pillow allocates memory for a
    WebP when it opens one, and hides the size of a refused image; Pillow reads others.

    Raises:
        PIL.Image.DecompressionBombError: if Pillow refuses a format that it reads.
    """
    head = file.read(32).ljust(32, b'\0')
    if head.startswith(b'\x89PNG\r\n\x1a\n'):
        if head[12:16] != b'IHDR':
            return None
        width, height = unpack('>II', head[16:24])
    elif head.startswith(b'\xff\xd8'):
        return _jpeg_size(file)
    elif head[:4] in (b'II*\0', b'II+\0', b'MM\0*', b'MM\0+'):
        return _tiff_size(file, head)
    elif head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        width, height = _webp_size(head)
    elif head.startswith((b'GIF87a', b'GIF89a')):
        width, height = unpack('<HH', head[6:10])
    elif head.startswith(b'BM'):
        short = unpack('<I', head[14:18])[0] == 12
        width, height = unpack(
            '<HH' if short else '<ii', head[18 : 22 if short else 26]
        )
    else:
        file.seek(0)
        try:
            with Image.open(file) as image:
                width, height = image.size
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
            return None
    return abs(height), abs(width)


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(2)
    sizes: list[tuple[int, int]] = []
    while (marker := _next_marker(file)) not in (0xD9, 0xDA):  # the end, or the scan
        if marker in _JPEG_ALONE:
            continue
        segment = file.read(7)
        if len(segment) < 7:
            break
        if marker in _JPEG_SIZES:
            height, width = unpack('>xxxHH', segment)
            sizes.append((height, width))
        length = max(2, unpack('>H', segment[:2])[0])
        file.seek(length - len(segment), os.SEEK_CUR)
    return max(sizes, key=_area, default=None)


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _next_marker(file: BinaryIO) -> int:
    """Go to the end of the next marker; decoders skip the bytes before it."""
    while len(block := file.read(1 << 12)) > 1:
        if found := _JPEG_MARKER.search(block):
            file.seek(found.end() - len(block), os.SEEK_CUR)
            return found[1][0]
        if block.endswith(b'\xff'):
            file.seek(-1, os.SEEK_CUR)
    return 0xD9


def _tiff_size(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    order = '<' if head[:1] == b'I' else '>'
    is_big = unpack(f'{order}H', head[2:4])[0] == 43
    kinds, entry_bytes = ('QQ', 20) if is_big else ('IH', 12)
    (offset,) = unpack(order + kinds[0], head[8:16] if is_big else head[4:8])
    file.seek(min(offset, 1 << 62))
    count_bytes = 8 if is_big else 2
    count = file.read(count_bytes)
    if len(count) < count_bytes:
        return None
    sides: dict[int, list[int]] = {256: [], 257: []}
    for _ in range(min(unpack(order + kinds[1], count)[0], 1 << 16)):
        entry = file.read(entry_bytes)
        if len(entry) < entry_bytes:
            break
        tag, kind = unpack(f'{order}HH', entry[:4])
        if tag not in sides:
            continue
        code, value = _TIFF_TYPES.get(kind), entry[12 if is_big else 8 :]
        if code is None or len(value) < _TIFF_BYTES[code.upper()]:
            return None  # some decoder may know this type
        sides[tag] += unpack(order + code, value[: _TIFF_BYTES[code.upper()]])
    if not sides[256] or not sides[257]:
        return None
    return max(map(abs, sides[257])), max(map(abs, sides[256]))


def _webp_size(head: bytes) -> tuple[int, int]:
    """Return (width, height); (0, 0) for an unknown kind."""
    if head[12:16] == b'VP8X':
        width, height = (int.from_bytes(head[i : i + 3], 'little') for i in (24, 27))
        return width + 1, height + 1
    if head[12:16] == b'VP8L':
        bits = int.from_bytes(head[21:25], 'little')
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b'VP8 ':
        width, height = unpack('<HH', head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0
