import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.parametrize(('value', 'limit'), [('1000', 1000), ('', 2**29)])
def test_the_environment_sets_the_limit_of_all_readers(value, limit):
    code = (
        'from illama_seg.datasets import images; from PIL import Image; '
        'print(images.MAX_PIXELS, Image.MAX_IMAGE_PIXELS)'
    )
    environment = {k: v for k, v in os.environ.items() if k != images.VARIABLE}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=environment | ({images.VARIABLE: value} if value else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    ours, pillows = map(int, done.stdout.split()[-2:])
    assert ours == limit and (pillows == limit) == bool(value)
