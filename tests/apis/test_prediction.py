import struct
import zlib

import cv2
import numpy as np
import pytest
import torch

from illama_seg.apis import (
    find_images,
    infer,
    load_config,
    load_segmentor,
    predict,
    read_image,
)
from illama_seg.apis.models import annotation_ids
from illama_seg.datasets import CheckedADE20KDataset


@pytest.fixture(scope='module')
def model(run):
    return load_segmentor(run.config, run.checkpoint)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ('shape', 'dtype'),
    [
        ((6, 9), 'uint8'),
        ((6, 9, 4), 'uint8'),
        ((6, 9, 3), 'uint16'),
        ((6, 9), 'uint16'),
    ],
)
def test_any_png_is_read_as_three_channels_of_8_bits(shape, dtype, tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.full(shape, np.iinfo(dtype).max // 2, dtype))
    image = read_image(path)
    assert image.shape == (6, 9, 3) and image.dtype == np.uint8
    assert np.all(abs(image.astype(int) - 127) <= 1)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
@pytest.mark.parametrize('damage', ['truncated', 'garbage', 'empty'])
def test_a_damaged_image_is_named(damage, suffix, noise, tmp_path):
    path = tmp_path / f'image{suffix}'
    cv2.imwrite(str(path), noise)
    whole = path.read_bytes()
    damaged = dict(truncated=whole[: len(whole) // 2], garbage=b'junk' * 99, empty=b'')
    path.write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=rf'image{suffix} .* is damaged'):
        read_image(path)


def test_an_image_beyond_opencvs_limit_is_named_with_the_variable(tmp_path):
    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))

    header = struct.pack('>IIBBBBB', 40000, 40000, 8, 2, 0, 0, 0)
    path = tmp_path / 'huge.png'
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', zlib.compress(b''))
        + chunk(b'IEND', b'')
    )
    with pytest.raises(ValueError, match=r'huge\.png .* OPENCV_IO_MAX_IMAGE_PIXELS'):
        read_image(path)


def test_an_overlay_too_long_for_jpeg_is_a_png(model, noise, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'image.png'), noise)
    monkeypatch.setattr(infer, 'JPEG_SIDE', 50)
    images = find_images([tmp_path / 'image.png'])
    assert infer.segment_files(model, images, out=tmp_path / 'out')[1] == []
    assert cv2.imread(str(tmp_path / 'out' / 'overlay' / 'image.png')).shape[1] == 64


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.png'):
        read_image(tmp_path / 'nowhere.png')


def test_images_are_found_in_sub_folders_and_keep_their_place(tmp_path):
    (tmp_path / 'sub').mkdir()
    for name in ('b.PNG', 'a.jpg', 'sub/a.jpg', 'notes.txt'):
        (tmp_path / name).touch()
    names = [str(name) for _, name in find_images([tmp_path])]
    assert names == ['a.jpg', 'b.PNG', 'sub/a.jpg']
    ((path, name),) = find_images([tmp_path / 'sub' / 'a.jpg'])
    assert path == tmp_path / 'sub' / 'a.jpg' and str(name) == 'a.jpg'


def test_a_missing_input_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        find_images([tmp_path / 'nowhere'])
    with pytest.raises(ValueError, match=r'no image in folder .*\.jpg'):
        find_images([tmp_path])


@pytest.mark.parametrize('size', [(64, 80), (8, 8), (1, 1), (97, 31), (20, 80)])
def test_an_image_of_any_size_is_segmented_at_its_own_size(size, model):
    labels = predict(model, np.full((*size, 3), 90, np.uint8))
    assert labels.shape == size and labels.dtype == np.uint8
    assert labels.max() < 150


def test_an_image_thinner_than_two_patches_after_resizing_is_refused(model):
    with pytest.raises(ValueError, match=r'image of 20x200 cannot .* than one patch'):
        predict(model, np.full((20, 200, 3), 90, np.uint8))


@pytest.mark.parametrize('mode', ['whole', 'slide'])
def test_without_resizing_an_image_smaller_than_two_patches_is_refused(mode, run):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    options = {'test_pipeline': pipeline, 'model.test_cfg.mode': mode}
    model = load_segmentor(load_config(run.config, options), run.checkpoint)
    with pytest.raises(ValueError, match=r'image of 8x8 cannot .* than one patch'):
        predict(model, np.full((8, 8, 3), 90, np.uint8))
    assert predict(model, np.full((17, 17, 3), 90, np.uint8)).shape == (17, 17)


@pytest.mark.parametrize(
    'options', [dict(full_size=True), dict(blend='hann'), dict(batch_size=2)]
)
def test_what_has_no_effect_on_a_padded_image_is_refused(options, run):
    padding = {'model.data_preprocessor.test_cfg': dict(size_divisor=16)}
    slide = {'model.test_cfg.mode': 'slide'}
    model = load_segmentor(load_config(run.config, padding | slide), run.checkpoint)
    image = np.full((40, 40, 3), 90, np.uint8)
    assert predict(model, image).shape == (40, 40)
    with pytest.raises(ValueError, match=r'data_preprocessor\.test_cfg=None'):
        predict(model, image, **options)


def test_no_windows_at_once_are_refused(model, noise):
    with pytest.raises(ValueError, match='batch_size=0: expected at least 1'):
        predict(model, noise, batch_size=0)


def test_a_prediction_is_the_same_twice(model, noise):
    np.testing.assert_array_equal(predict(model, noise), predict(model, noise))


def test_the_weights_of_the_checkpoint_are_in_the_model(model, run):
    saved = torch.load(run.checkpoint, weights_only=False)['state_dict']
    loaded = model.state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[key].cpu(), saved[key]) for key in saved)
    assert not model.training


def test_the_model_knows_the_classes_of_its_data(model):
    assert (
        len(model.dataset_meta['classes']) == len(model.dataset_meta['palette']) == 150
    )


@pytest.fixture
def altered(run, tmp_path):
    """Save the checkpoint with something changed."""

    def save(change):
        state = torch.load(run.checkpoint, weights_only=False)
        state = dict(meta=dict(state['meta']), state_dict=dict(state['state_dict']))
        change(state)
        torch.save(state, tmp_path / 'altered.pth')
        return tmp_path / 'altered.pth'

    return save


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (
            lambda state: state['state_dict'].update(
                {'decode_head.conv_seg.bias': torch.zeros(11)}
            ),
            r'decode_head\.conv_seg\.bias: the file has \(11,\), the model \(150,\)',
        ),
        (
            lambda state: state['state_dict'].pop('backbone.pos_embed'),
            r'backbone\.pos_embed: not in the file',
        ),
        (
            lambda state: state['state_dict'].update(extra=torch.zeros(1)),
            r'extra: not in the model',
        ),
        (lambda state: state['meta'].pop('dataset_meta'), 'has no class names'),
        (
            lambda state: state['meta']['dataset_meta'].update(classes=['a'] * 300),
            'of 300 classes: expected 255 or fewer',
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_its_keys(
    change, text, run, altered
):
    with pytest.raises(ValueError, match=text) as error:
        load_segmentor(run.config, altered(change))
    assert 'altered.pth' in str(error.value)


@pytest.mark.parametrize('names', [('sky', 'car', 'wall'), ('flag', 'building')])
def test_predictions_of_some_of_ade20ks_classes_get_ade20ks_ids(names):
    published = CheckedADE20KDataset.METAINFO['classes']
    meta = dict(
        classes=names,
        label_map=CheckedADE20KDataset.get_label_map(names),
        reduce_zero_label=True,
    )
    ids = annotation_ids(meta)
    assert ids.tolist() == [published.index(name) + 1 for name in names]
    assert [published[i - 1] for i in ids] == list(names)


def test_predictions_of_a_data_set_that_counts_from_zero_keep_their_numbers():
    assert annotation_ids(dict(classes=('a', 'b', 'c'))).tolist() == [0, 1, 2]
