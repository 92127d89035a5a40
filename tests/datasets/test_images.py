import contextlib
import io
import os
import struct
import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from illama_seg.datasets import images
from illama_seg.datasets.images import check_image, declared_size, open_image

FORMATS = ('PNG', 'JPEG', 'TIFF', 'BMP', 'GIF', 'PPM', 'WebP', 'WebP lossless')
SIDES = st.integers(1, 300)


def written(kind, height, width):
    image, file = Image.new('L', (width, height), 7), io.BytesIO()
    if kind.startswith('WebP'):
        image.convert('RGB').save(file, 'WebP', lossless=kind != 'WebP')
    else:
        image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize('kind', FORMATS)
@given(height=SIDES, width=SIDES)
def test_the_size_in_a_header_is_the_size_of_the_picture(kind, height, width):
    content = written(kind, height, width)
    assert declared_size(io.BytesIO(content)) == (height, width)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.webp', '.bmp'])
@given(height=SIDES, width=SIDES)
def test_the_size_is_that_of_what_opencv_writes(suffix, height, width):
    content = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8))[1].tobytes()
    assert declared_size(io.BytesIO(content)) == (height, width)


def test_a_jpeg_with_metadata_before_its_frame_is_read():
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = 'text' * 4000
    profile = b'x' * 200_000  # in several segments of 64 KiB
    Image.new('RGB', (31, 17)).save(file, 'JPEG', exif=exif, icc_profile=profile)
    assert declared_size(io.BytesIO(file.getvalue())) == (17, 31)


def test_a_webp_with_transparency_is_read():
    file = io.BytesIO()
    image = Image.new('RGBA', (31, 17), (1, 2, 3, 4))
    image.save(file, 'WebP', exif=b'Exif\0\0')  # makes it the extended format
    assert file.getvalue()[12:16] == b'VP8X'
    assert declared_size(io.BytesIO(file.getvalue())) == (17, 31)


# What decoders make of headers that are not as they should be


def decoded(content):
    """The sizes that OpenCV and Pillow find."""
    sizes = []
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is not None:
        sizes.append(array.shape[:2])
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter('ignore')
        with Image.open(io.BytesIO(content)) as image:
            sizes.append(image.size[::-1])
    return sizes


def with_junk(junk, place):
    """A JPEG of 17 x 31 with more in front of the marker at that place."""
    content = written('JPEG', 17, 31)
    at = {'first': 2, 'frame': content.index(b'\xff\xc0')}[place]
    return content[:at] + junk + content[at:]


JUNK = (
    *(bytes([0xFF, marker]) for marker in (0x00, 0x01, 0xD0, 0xD7, 0xFF)),
    b'\xff\xfe\0\4ab',
    b'\xff\xfe\0\1',
)


@pytest.mark.parametrize('place', ['first', 'frame'])
@pytest.mark.parametrize('junk', [*JUNK, b'\0\1\2'], ids=bytes.hex)
def test_what_decoders_skip_in_a_jpeg_is_skipped(junk, place):
    content = with_junk(junk, place)
    if place == 'frame' or junk[:1] == b'\xff':  # else it does not begin as a JPEG
        assert decoded(content)
    assert set(decoded(content)) <= {declared_size(io.BytesIO(content))}


@given(
    junk=st.lists(st.sampled_from(JUNK) | st.binary(max_size=4), max_size=5),
    place=st.sampled_from(['first', 'frame']),
)
def test_a_jpeg_that_a_decoder_reads_has_the_size_it_finds(junk, place):
    content = with_junk(b''.join(junk), place)
    assert set(decoded(content)) <= {declared_size(io.BytesIO(content))}


def test_a_marker_across_the_blocks_of_reading_is_found():
    for length in range(4080, 4100):
        content = with_junk(bytes(length), 'frame')
        assert declared_size(io.BytesIO(content)) == (17, 31)
    assert declared_size(io.BytesIO(b'\xff\xd8' + bytes(9000) + b'\xff')) is None


def tiff(sides, order, is_big):
    """Grey; `sides` are (tag, type, value) in their order, the rest is for 9 x 7."""
    entries = [(*side, 1) for side in sides]
    entries += [(258, 3, 8, 1), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    entries += [(273, 4, 8, 1), (278, 3, 9, 1), (279, 4, 63, 1)]
    codes = {1: 'B', 3: 'H', 4: 'I', 6: 'b', 8: 'h', 9: 'i', 16: 'Q', 17: 'q'}
    body = struct.pack(f'{order}{"Q" if is_big else "H"}', len(entries))
    for tag, kind, value, count in entries:
        packed = struct.pack(order + codes.get(kind, 'I'), value)
        room = 8 if is_big else 4
        body += struct.pack(f'{order}HH{"Q" if is_big else "I"}', tag, kind, count)
        body += packed.ljust(room, b'\0')[:room]
    head = b'II' if order == '<' else b'MM'
    pixels = bytes(range(64))
    at = 16 + len(pixels) if is_big else 8 + len(pixels)
    numbers = (43, 8, 0, at) if is_big else (42, at)
    head += struct.pack(order + ('HHHQ' if is_big else 'HI'), *numbers)
    return head + pixels + body + bytes(8)


SIDES_OF_TIFF = st.lists(
    st.tuples(
        st.sampled_from([256, 257]), st.integers(1, 17), st.sampled_from([5, 7, 9])
    ),
    max_size=2,
)


@pytest.mark.parametrize('is_big', [False, True])
@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('kind', [1, 3, 4, 6, 8, 9, 16, 17])
def test_the_sides_of_a_tiff_may_be_of_any_whole_type(kind, order, is_big):
    content = tiff([(256, kind, 7), (257, kind, 9)], order, is_big)
    expected = (9, 7) if is_big or kind < 16 else None
    assert declared_size(io.BytesIO(content)) == expected
    assert expected in decoded(content) or kind not in (1, 3, 4)


@pytest.mark.parametrize('is_big', [False, True])
@given(more=SIDES_OF_TIFF, is_first=st.booleans(), order=st.sampled_from('<>'))
def test_no_tiff_is_decoded_larger_than_its_header_says(is_big, more, is_first, order):
    sides = [(256, 3, 7), (257, 3, 9)]
    sides = [*more, *sides] if is_first else [*sides, *more]
    content = tiff(sides, order, is_big)
    declared = declared_size(io.BytesIO(content))
    for height, width in decoded(content):
        assert declared is None or height * width <= declared[0] * declared[1]


@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_no_picture_is_decoded_larger_than_its_damaged_header_says(data, kind):
    content = bytearray(written(kind, 20, 30))
    places = st.integers(0, min(len(content), 60) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        declared = declared_size(io.BytesIO(content))
    except Image.DecompressionBombError:
        return
    if declared is None or declared[0] * declared[1] > 1 << 20:
        return
    for height, width in decoded(bytes(content)):
        assert height * width <= declared[0] * declared[1]


@pytest.mark.parametrize(
    'content',
    [
        b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n' + b'\2\2\2\x80' * 4,
        b'P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nENDHDR\n1234',
        tiff([(256, 5, 7), (257, 3, 9)], '<', True),
        b'',
        b'text',
    ],
)
def test_what_has_no_size_to_be_read_is_for_no_decoder(content, tmp_path):
    path = tmp_path / 'image.png'
    path.write_bytes(content)
    check_image(path)
    message = rf'image\.png \({len(content)} bytes\) is damaged or no image of a known'
    with pytest.raises(ValueError, match=message):
        check_image(path, is_known=True)


@given(content=st.binary(max_size=100), kind=st.sampled_from(FORMATS), cut=st.data())
def test_any_bytes_have_a_size_or_none(content, kind, cut):
    declared_size(io.BytesIO(content))
    head = written(kind, 20, 30)
    head = head[: cut.draw(st.integers(0, min(60, len(head))))]
    found = declared_size(io.BytesIO(head + content))
    assert found is None or len(found) == 2


def test_the_limit_is_on_the_pixels_and_includes_itself(tmp_path, monkeypatch):
    path = tmp_path / 'image.png'
    path.write_bytes(written('PNG', 20, 30))
    monkeypatch.setattr(images, 'MAX_PIXELS', 600)
    check_image(path)
    assert open_image(path).size == (30, 20)
    monkeypatch.setattr(images, 'MAX_PIXELS', 599)
    message = r'image\.png was not decoded: its header says 20 x 30 .* limit is 599'
    with pytest.raises(ValueError, match=message):
        check_image(path)
    with pytest.raises(ValueError, match=message):
        check_image('image.png', path.read_bytes())
    with pytest.raises(ValueError, match=message):
        open_image(path)


def test_a_picture_of_10_000_by_8_000_goes_through():
    assert images.MAX_PIXELS >= 10_000 * 8_000 * 4


def test_what_is_not_on_this_machine_is_left_to_its_reader():
    check_image('s3://bucket/image.png')


def test_a_picture_between_pillows_own_limit_and_ours_is_opened(tmp_path):
    path = tmp_path / 'image.pgm'
    path.write_bytes(b'P5 15000 13000 255 ')
    assert open_image(path).size == (15_000, 13_000)


@pytest.mark.parametrize(
    ('value', 'limit'),
    [('1000', 1000), pytest.param('', 2**29, marks=pytest.mark.slow)],
)
def test_the_environment_sets_the_limit_of_all_readers(value, limit):
    code = """
from illama_seg.datasets import images
import cv2, io, math, numpy
from PIL import Image
side = math.isqrt(images.MAX_PIXELS)
print(images.MAX_PIXELS)
content = numpy.frombuffer(b'Pf\\n%d %d\\n-1.0\\n' % (side + 1, side + 1), numpy.uint8)
try:
    cv2.imdecode(content, -1)
except cv2.error as error:
    print('MAX_IMAGE_PIXELS' in str(error))
for more in (0, 1):
    file = io.BytesIO(b'P5 %d %d 255 ' % (side + more, side + more))
    try:
        print(Image.open(file).size is None)
    except Image.DecompressionBombError:
        print(True)
"""
    environment = {k: v for k, v in os.environ.items() if k != images.VARIABLE}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env=environment | ({images.VARIABLE: value} if value else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-4:] == [str(limit), 'True', 'False', 'True']
