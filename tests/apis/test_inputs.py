"""Paths, arrays and PIL images, mixed, through ``predict``."""

import cv2
import numpy as np
import pytest
import torch
from mmseg.apis import inference_model
from PIL import Image

from illama_seg.apis import load_config, load_segmentor, predict
from illama_seg.apis.inputs import as_array


@pytest.fixture(scope='module')
def model(run):
    return load_segmentor(run.config, run.checkpoint)


@pytest.fixture(scope='module')
def image():
    """(H, W, 3) uint8, BGR: three stripes."""
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:20], image[30:, :40] = (230, 170, 110), (40, 40, 200)
    return image


@pytest.fixture(scope='module')
def path(image, tmp_path_factory):
    path = tmp_path_factory.mktemp('inputs') / 'image.png'
    cv2.imwrite(str(path), image)
    return path


KINDS = {
    'array': lambda image, path: image,
    'with alpha': lambda image, path: np.dstack(
        [image, np.full(image.shape[:2], 9, 'u1')]
    ),
    'turned view': lambda image, path: image[..., ::-1].copy()[..., ::-1],
    'path': lambda image, path: path,
    'string': lambda image, path: str(path),
    'PIL': lambda image, path: Image.open(path),
    'PIL with alpha': lambda image, path: Image.open(path).convert('RGBA'),
}


@pytest.mark.parametrize('kind', KINDS)
def test_an_image_of_any_kind_is_segmented_as_its_array(kind, model, image, path):
    found = predict(model, KINDS[kind](image, path))
    np.testing.assert_array_equal(found, predict(model, image))


@pytest.mark.parametrize('several', [list, tuple, iter], ids=lambda kind: kind.__name__)
def test_several_may_be_mixed_in_a_list_or_a_generator(several, model, image, path):
    found = predict(model, several([image, path, Image.open(path), str(path)]))
    assert len(found) == 4
    for labels in found:
        np.testing.assert_array_equal(labels, predict(model, image))


@pytest.mark.parametrize('mode', ['(H, W)', '(H, W, 1)', 'L', '1', 'P', 'LA'])
def test_a_grey_image_has_its_value_in_each_channel(mode, model, image):
    grey = np.where(image[..., 0] > 100, 255, 0).astype(np.uint8)
    expected = predict(model, np.dstack([grey] * 3))
    kinds = {'(H, W)': grey, '(H, W, 1)': grey[..., None]}
    given = kinds.get(mode)
    if given is None:
        given = Image.fromarray(grey).convert(mode)
    np.testing.assert_array_equal(predict(model, given), expected)


@pytest.mark.parametrize(
    ('given', 'texts'),
    [
        (np.ones((48, 64, 3)), ['is float64', 'expected uint8', '255 * image']),
        (np.ones((48, 64, 3), np.uint16), ['is uint16: expected uint8']),
        (np.ones((48, 64), bool), ['is bool']),
        (np.ones((48, 64, 2), np.uint8), ['shape (48, 64, 2)', '(H, W, 4) in BGRA']),
        (np.ones((3, 48, 64), np.uint8), ['shape (3, 48, 64)']),
        (np.ones((2, 48, 64, 3), np.uint8), ['several images in a list']),
        (np.ones((0, 64, 3), np.uint8), ['shape (0, 64, 3)']),
        (Image.new('F', (64, 48)), ["mode 'F'", 'or give its path']),
        (Image.new('I;16', (64, 48)), ["mode 'I;16'"]),
        (None, ['an image is a NoneType', 'path or a PIL image']),
        (torch.ones(1, 48, 64), ['image 0 of several: an image is a Tensor']),
        ('nowhere.png', ['no image nowhere.png']),
    ],
)
def test_what_is_no_image_for_the_model_is_named(given, texts, model):
    with pytest.raises(ValueError) as error:
        predict(model, given)
    for text in texts:
        assert text in str(error.value)


def test_in_a_list_the_place_is_named_and_the_kind_of_error_kept(model, image):
    with pytest.raises(FileNotFoundError, match=r'image 1 of several: no image n\.png'):
        predict(model, [image, 'n.png'])
    with pytest.raises(
        ValueError, match=r'image 2 of several: the array of .* float64'
    ):
        predict(model, (one for one in (image, image, image / 255)))
    assert predict(model, []) == []


def test_arrays_are_left_alone_where_the_loader_reads_other_values(run, image):
    loader = {'test_pipeline.0.to_float32': True}
    model = load_segmentor(load_config(run.config, loader), run.checkpoint)
    labels = predict(model, image.astype(np.float32))
    np.testing.assert_array_equal(labels, predict(model, image))


def test_a_pil_image_has_the_bands_that_the_loader_reads_or_is_refused(path):
    picture = Image.open(path)
    step = dict(type='LoadImageFromFile', color_type='grayscale')
    grey = as_array(picture, step)
    assert grey.shape == (48, 64)
    np.testing.assert_allclose(grey, as_array(path, step), atol=1)
    for other in (
        dict(type='LoadImageFromFile', imdecode_backend='tifffile'),
        dict(type='LoadImageFromFile', color_type='unchanged'),
    ):
        with pytest.raises(ValueError, match='give its path, or an array'):
            as_array(picture, other)


@pytest.mark.parametrize('padding', [None, dict(size_divisor=16)])
def test_mmsegs_inference_takes_a_path_after_our_arrays_but_not_after_its_own(
    padding, run, image, path
):
    options = {'model.data_preprocessor.test_cfg': padding}
    model = load_segmentor(load_config(run.config, options), run.checkpoint)
    ours = predict(model, image)
    theirs = inference_model(model, str(path)).pred_sem_seg.data[0]
    np.testing.assert_array_equal(ours, theirs)
    inference_model(model, image)
    with pytest.raises(KeyError, match='img'):  # its own fault: docs/python.md
        inference_model(model, str(path))
    found = predict(model, [str(path), image, image[..., :3]])
    for labels in found:
        np.testing.assert_array_equal(labels, ours)
