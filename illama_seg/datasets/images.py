"""Refuse a picture by the size in its header, before anything is allocated for it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from struct import unpack
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

VARIABLE = 'OPENCV_IO_MAX_IMAGE_PIXELS'
_SET = os.environ.get(VARIABLE, '')
# 23,170 x 23,170, say: 1.6 GB as three channels of 8 bits.
MAX_PIXELS = int(_SET) if _SET.isdecimal() else 2**29
if _SET.isdecimal():
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own is a sixth of that above
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_TIFF_TYPES = {3: 'H', 4: 'I', 16: 'Q'}


def check_image(path: str | os.PathLike, content: bytes | None = None) -> None:
    """Refuse an image whose header declares more than ``MAX_PIXELS`` pixels.

    Another limit is set by the environment variable that OpenCV has for it.

    Args:
        path: of the image; a file that is not on this machine passes without content.
        content: what is in the file, where it was read already.

    Raises:
        ValueError: names the file, the size found, the limit and the way out.
    """
    if content is None and not os.path.isfile(path):
        return
    try:
        with open(path, 'rb') if content is None else io.BytesIO(content) as file:
            size = declared_size(file)
    except Image.DecompressionBombError:
        size = None
    else:
        if size is None or size[0] * size[1] <= MAX_PIXELS:
            return
    found = f'{size[0]:,} x {size[1]:,} pixels' if size else 'more than Pillow takes'
    raise ValueError(
        f'{path} was not decoded: its header says {found}, the limit is '
        f'{MAX_PIXELS:,} pixels. A small file that says so is made to fill the memory; '
        f'for a real picture set {VARIABLE} in the environment to its number of pixels'
    )


def open_image(path: str | Path) -> Image.Image:
    """Open an image by Pillow, undecoded as yet, unless ``check_image`` refuses it."""
    check_image(path)
    return Image.open(path)


def declared_size(file: BinaryIO) -> tuple[int, int] | None:
    """(height, width) that a header declares; None where there is none to be read.

    PNG, JPEG, TIFF, WebP, BMP and GIF are read here, since Pillow allocates for a WebP
    when it opens one, and hides the size of what it refuses; other formats by Pillow.

    Raises:
        PIL.Image.DecompressionBombError: of Pillow, for a format that it reads.
    """
    head = file.read(32).ljust(32, b'\0')
    if head.startswith(b'\x89PNG\r\n\x1a\n'):
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
    while (byte := file.read(1)) == b'\xff':
        while byte == b'\xff':  # any number of them may stand before a marker
            byte = file.read(1)
        marker = byte[0] if byte else 0xD9
        length = file.read(2)
        if marker in (0xD9, 0xDA) or len(length) < 2:  # the end, or the scan
            return None
        if marker in _JPEG_SIZES:
            frame = file.read(5)
            return unpack('>xHH', frame) if len(frame) == 5 else None
        file.seek(max(0, unpack('>H', length)[0] - 2), os.SEEK_CUR)
    return None


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
    sides: dict[int, int] = {}
    for _ in range(min(unpack(order + kinds[1], count)[0], 1 << 16)):
        entry = file.read(entry_bytes)
        if len(entry) < entry_bytes:
            break
        tag, kind = unpack(f'{order}HH', entry[:4])
        if tag in (256, 257) and kind in _TIFF_TYPES:
            value = entry[12 if is_big else 8 :]
            code = _TIFF_TYPES[kind]
            width = {'H': 2, 'I': 4, 'Q': 8}[code]
            if len(value) >= width:
                (sides[tag],) = unpack(order + code, value[:width])
    return (sides[257], sides[256]) if len(sides) == 2 else None


def _webp_size(head: bytes) -> tuple[int, int]:
    """(width, height); a file of no known kind has no pixels."""
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
