"""tools/stream.py on an image and on a video of lines."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from tiny_run import ROOT, run_tool

from illama_seg.apis import StreamSegmentor, load_config, load_segmentor, stream_file
from illama_seg.errors import UserError

CONFIG = """
_base_ = ['{root}/configs/upernet_illama_tiny_ade20k.py']
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True
    ),
    backbone=dict(
        type='ILLaMA',
        arch=dict(embed_dims=24, num_layers=2, num_heads=2),
        img_size=32,
        patch_size=8,
        out_indices=(1,),
        attn_mask='{mask}',
        pos_axes='columns',
    ),
    decode_head=dict(type='LinearHead', in_channels=24, num_classes=4),
    test_cfg=dict(mode='whole'),
)
"""


def save(folder, mask='strict'):
    config = folder / f'{mask}.py'
    config.write_text(CONFIG.format(root=ROOT, mask=mask))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(config).model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    palette = [[9 * n, 0, 0] for n in range(4)]
    meta = dict(dataset_meta=dict(classes=tuple('abcd'), palette=palette))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'model.pth')
    return config, folder / 'model.pth'


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp('stream'))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (45, 40, 3), np.uint8)


def expected(saved, image):
    segmentor = StreamSegmentor(load_segmentor(*saved))
    parts = [segmentor.push(image), segmentor.finish()]
    return np.concatenate([part for part in parts if len(part)])


@pytest.mark.parametrize('rows', [[], ['--rows-at-once', '3']])
def test_an_image_is_segmented_by_rows(saved, image, tmp_path, rows, capsys):
    cv2.imwrite(str(tmp_path / 'scene.png'), image)
    run_tool('stream', *saved, tmp_path / 'scene.png', '--out', tmp_path / 'out', *rows)
    assert '6 bands of 8 rows: labels' in capsys.readouterr().out
    labels = cv2.imread(str(tmp_path / 'out' / 'scene_labels.png'), -1)
    np.testing.assert_array_equal(labels, expected(saved, image))
    assert cv2.imread(str(tmp_path / 'out' / 'scene_overlay.jpg')).shape == image.shape
    numbers = json.loads((tmp_path / 'out' / 'scene_stream.json').read_text())
    bands = numbers['bands']
    assert [band['rows'] for band in bands] == [8, 16, 24, 32, 40, 45]
    assert [band['kept_rows'] for band in bands] == [1, 2, 3, 4, 5, 6]
    assert all(band['seconds'] > 0 for band in bands)


def test_the_animation_shows_the_rows_arrive(saved, image, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    out = tmp_path / 'out'
    run_tool('stream', *saved, tmp_path / 'a.png', '--out', out, '--animation')
    with Image.open(out / 'a_stream.gif') as animation:
        assert animation.n_frames == 1 + 6  # nothing, and six bands
        frames = []
        for number in (0, 3, 6):
            animation.seek(number)
            frames.append(np.asarray(animation.convert('RGB')).astype(int))
    # Rows that have not arrived are grey; they become fewer.
    grey = [(abs(frame - 235).max(axis=2) < 8).sum() for frame in frames]
    assert grey[0] > grey[1] > grey[2]
    assert (out / 'a_stream.gif').stat().st_size < 2**20


def test_the_frames_of_a_video_are_the_next_rows(saved, image, tmp_path):
    path = tmp_path / 'lines.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 5, (40, 4))
    for top in range(0, 44, 4):
        writer.write(image[top : top + 4])
    writer.release()
    reader, frames = cv2.VideoCapture(str(path)), []
    while (found := reader.read())[0]:
        frames.append(found[1])
    run_tool('stream', *saved, path, '--out', tmp_path / 'out')
    labels = cv2.imread(str(tmp_path / 'out' / 'lines_labels.png'), -1)
    np.testing.assert_array_equal(labels, expected(saved, np.concatenate(frames)))


def test_a_model_that_looks_ahead_is_named(tmp_path, image):
    cv2.imwrite(str(tmp_path / 'scene.png'), image)
    saved = save(tmp_path, 'soft')
    with pytest.raises(SystemExit, match=r'looks ahead \(soft\)'):
        run_tool('stream', *saved, tmp_path / 'scene.png', '--out', tmp_path / 'out')


@pytest.mark.parametrize('name', ['scene.png', 'lines.avi'])
def test_a_model_of_another_kind_is_named_before_the_file_is_read(tmp_path, name):
    with pytest.raises(UserError, match='expected an ILLaMA'):
        stream_file(torch.nn.Linear(2, 2), tmp_path / name, tmp_path / 'out')
