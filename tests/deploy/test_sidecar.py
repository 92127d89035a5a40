"""Sidecars: what is written is read, and what does not belong is refused."""

import json

import cv2
import numpy as np
import pytest
from mmcv.transforms import Resize

from illama_seg.deploy import Sidecar, is_exported, read_sidecar
from illama_seg.deploy.sidecar import sidecar_path, write_sidecar
from illama_seg.errors import MissingFileError, UserError


def sidecar(**changes):
    facts = dict(
        task='segmentation',
        channels=3,
        size=[8, 8],
        mean=[1.0, 2.0, 3.0],
        std=[4.0, 5.0, 6.0],
        to_rgb=True,
        resize=None,
        windows=None,
        align_corners=False,
        classes=['a', 'b'],
        palette=[[0, 0, 0], [1, 1, 1]],
        ids=[1, 2],
        threshold=None,
        precision='float32',
        checkpoint='',
        versions={},
        digests={},
    )
    return Sidecar(**(facts | changes))


@pytest.fixture(params=['.onnx', '.xml'])
def file(request, tmp_path):
    path = tmp_path / f'model{request.param}'
    path.write_bytes(b'graph')
    if request.param == '.xml':
        path.with_suffix('.bin').write_bytes(b'weights')
    write_sidecar(path, sidecar())
    return path


def test_a_sidecar_is_read_as_it_was_written(file):
    found = read_sidecar(file)
    assert found == sidecar(digests=found.digests)
    assert is_exported(file) and not is_exported('model.pth')


def test_another_file_with_the_same_name_is_refused(file):
    changed = file.with_suffix('.bin') if file.suffix == '.xml' else file
    changed.write_bytes(b'other')
    with pytest.raises(
        UserError, match=r'is not of .*: it has SHA-256 .* expected .*: export'
    ):
        read_sidecar(file)


def test_a_missing_part_is_named(file):
    sidecar_path(file).unlink()
    with pytest.raises(MissingFileError, match=rf'no file .*{file.name}\.json'):
        read_sidecar(file)
    file.unlink()
    with pytest.raises(MissingFileError, match=f'no file .*{file.name}:'):
        read_sidecar(file)


@pytest.mark.parametrize('text', ['', '[]', '{"version": 1}', '{"version": 9', 'null'])
def test_a_damaged_sidecar_is_refused(file, text):
    sidecar_path(file).write_text(text)
    with pytest.raises(UserError, match=r'is no sidecar.*[Ee]xport again'):
        read_sidecar(file)


def test_a_sidecar_of_another_version_is_refused(file):
    values = json.loads(sidecar_path(file).read_text())
    sidecar_path(file).write_text(json.dumps(values | dict(version=2)))
    with pytest.raises(UserError, match='of version 1: found version 2'):
        read_sidecar(file)


@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('size', [(33, 50), (50, 33), (1000, 37), (64, 64), (1, 1)])
def test_an_image_is_resized_as_by_mmcv(size, keep_ratio):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    rule = dict(scale=[128, 40], keep_ratio=keep_ratio)
    expected = Resize(**rule | dict(scale=(128, 40)))(dict(img=image.copy()))['img']
    np.testing.assert_array_equal(sidecar(resize=rule).prepared(image), expected)


def test_an_image_is_normalised_in_the_order_of_the_channels():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = sidecar().normalised(image)
    expected = (image[..., ::-1] - [1.0, 2, 3]) / [4.0, 5, 6]
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), rtol=1e-6)
    assert found.dtype == np.float32 and found.shape == (1, 3, 2, 4)


def test_one_channel_stays_one():
    rule = dict(scale=[9, 9], keep_ratio=False)
    made = sidecar(channels=1, mean=[0.0], std=[1.0], to_rgb=False, resize=rule)
    image = np.ones((4, 5, 1), np.uint8)
    assert made.prepared(image).shape == (9, 9, 1)
    assert cv2.countNonZero(made.prepared(image)) == 81


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (dict(std=[1.0]), r'std is \[1\.0\], expected a list of 3 numbers'),
        (dict(mean=None), 'mean is None, expected a list of 3 numbers'),
        (dict(digests=None), 'digests is None, expected an object'),
    ],
)
def test_numbers_that_do_not_fit_are_named(file, changes, text):
    beside = sidecar_path(file)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | changes))
    with pytest.raises(UserError, match=text):
        read_sidecar(file)
    beside.write_text('[]')
    with pytest.raises(UserError, match='expected an object, found list'):
        read_sidecar(file)
