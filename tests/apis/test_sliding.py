import inspect
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.config import ConfigDict
from mmseg.apis import inference_model
from mmseg.models import EncoderDecoder, SegDataPreProcessor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import nn

from illama_seg import windows
from illama_seg.apis import (
    load_config,
    load_segmentor,
    predict,
    sliding_logits,
)

CLASSES = 3
SMALL = (16, 24), (10, 17)


class Convolution(nn.Module):
    """What ``slide_inference`` asks of a segmentor; sees the borders of its windows."""

    slide_inference = EncoderDecoder.slide_inference
    out_channels = CLASSES

    def __init__(self, crop, stride, align_corners=False, mode='slide'):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, CLASSES, 5, padding=2)
        self.data_preprocessor = SegDataPreProcessor([120] * 3, [60] * 3)
        self.test_cfg = ConfigDict(mode=mode, crop_size=crop, stride=stride)
        self.align_corners = align_corners
        self.batches = []

    def encode_decode(self, inputs, batch_img_metas):
        assert batch_img_metas[0]['img_shape'] == inputs.shape[2:]
        self.batches.append(len(inputs))
        return self.conv(inputs)


def picture(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def theirs(model, inputs, out_size):
    """mmseg's logits: all of the picture's, then resized."""
    batch = model.data_preprocessor(dict(inputs=[inputs]))['inputs']
    logits = model.slide_inference(batch, [{}])
    options = dict(mode='bilinear', align_corners=model.align_corners, warning=False)
    return resize(logits, size=out_size, **options)[0]


def ours(model, inputs, out_size=None, **options):
    """Our blocks in one piece, each output covered once."""
    out_size = out_size or tuple(inputs.shape[1:])
    joined = torch.zeros(CLASSES, *out_size)
    covered = torch.zeros(out_size, dtype=torch.int)
    for rows, columns, logits in sliding_logits(
        model, inputs, out_size=out_size, **options
    ):
        joined[:, rows, columns] = logits
        covered[rows, columns] += 1
    assert (covered == 1).all()
    return joined


sides = st.integers(1, 45)


@given(
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.tuples(st.integers(5, 20), st.integers(5, 20)),
    st.floats(0.2, 1),
    st.booleans(),
    st.integers(1, 4),
    st.sampled_from([0, 6000, 2**30]),
)
def test_the_logits_are_those_of_mmseg_at_any_size(
    size, out_size, crop, part, align_corners, batch_size, band_bytes
):
    stride = [max(1, int(part * side)) for side in crop]
    model = Convolution(crop, stride, align_corners)
    inputs = picture(size)
    options = dict(batch_size=batch_size, band_bytes=band_bytes)
    for out in (size, out_size):
        expected = theirs(model, inputs, out)
        torch.testing.assert_close(
            ours(model, inputs, out, **options), expected, rtol=1e-4, atol=1e-5
        )


def test_without_resizing_mean_logits_give_the_very_labels_of_mmseg():
    model, inputs = Convolution(*SMALL), picture((61, 83))
    expected = theirs(model, inputs, (61, 83)).argmax(0)
    assert torch.equal(ours(model, inputs).argmax(0), expected)


@pytest.mark.parametrize('blend', ['hann', 'gaussian'])
def test_a_blend_weights_each_window_from_its_middle_to_its_border(blend):
    model, inputs = Convolution((16, 16), (9, 11)), picture((40, 37))
    line = torch.arange(16) - 7.5
    weight = {
        'hann': torch.cos(torch.pi * line / 17) ** 2,
        'gaussian': torch.exp(-((line / 2) ** 2) / 2),
    }[blend]
    sums, weights = torch.zeros(CLASSES, 40, 37), torch.zeros(40, 37)
    with torch.no_grad():
        for y in (0, 9, 18, 24):
            for x in (0, 11, 21):
                window = inputs[:, y : y + 16, x : x + 16].float()
                logits = model.conv((window[None] - 120) / 60)[0]
                part = np.s_[..., y : y + 16, x : x + 16]
                sums[part] += logits * weight[:, None] * weight
                weights[part] += weight[:, None] * weight
    torch.testing.assert_close(
        ours(model, inputs, blend=blend), sums / weights, rtol=1e-4, atol=1e-5
    )


def test_whole_mode_is_one_window():
    model, inputs = Convolution((8, 8), (8, 8), mode='whole'), picture((21, 30))
    with torch.no_grad():
        expected = model.conv((inputs[None].float() - 120) / 60)[0]
    torch.testing.assert_close(ours(model, inputs), expected)
    assert model.batches == [1]


def test_windows_go_to_the_model_in_batches():
    model = Convolution((10, 10), (10, 10))
    ours(model, picture((20, 50)), batch_size=2)
    assert model.batches == [2, 2, 1, 2, 2, 1]


@pytest.mark.parametrize('stride', [0, 11])
def test_windows_that_leave_gaps_or_do_not_move_are_refused(stride):
    model = Convolution((10, 10), (10, stride))
    with pytest.raises(ValueError, match=rf'stride={stride}, crop_size=10'):
        ours(model, picture((30, 30)))


@pytest.mark.parametrize(
    ('option', 'text'), [(dict(blend='max'), 'mean'), (dict(batch_size=0), 'least 1')]
)
def test_an_argument_out_of_range_is_refused(option, text):
    with pytest.raises(ValueError, match=text):
        ours(Convolution((10, 10), (10, 10)), picture((12, 12)), **option)


@pytest.fixture
def segmentor(run):
    def load(**options):
        cfg = load_config(
            run.config, {f'model.test_cfg.{k}': v for k, v in options.items()}
        )
        return load_segmentor(cfg, run.checkpoint)

    return load


@pytest.mark.parametrize('mode', ['slide', 'whole'])
@pytest.mark.parametrize('size', [(90, 151), (33, 40), (200, 64)])
def test_predictions_are_those_of_mmseg(mode, size, segmentor):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    model = segmentor(mode=mode)
    labels = predict(model, image)
    expected = inference_model(model, image).pred_sem_seg.data[0].cpu().numpy()
    # Logits that are equal but for rounding can only exchange the two best.
    assert labels.shape == size and (labels != expected).mean() < 1e-3


def test_full_size_leaves_out_the_resizing(segmentor):
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    model = segmentor()
    full, resized = predict(model, image, full_size=True), predict(model, image)
    assert full.shape == resized.shape and (full != resized).any()
    (resize_step,) = (s for s in model.cfg.test_pipeline if s['type'] == 'Resize')
    model.cfg.test_pipeline.remove(resize_step)
    np.testing.assert_array_equal(full, predict(model, image))


def test_full_size_without_windows_is_refused_with_the_option(segmentor):
    with pytest.raises(ValueError, match=r'model\.test_cfg\.mode=slide'):
        predict(segmentor(mode='whole'), np.zeros((64, 64, 3), np.uint8), True)


PEAK = """
import resource
import torch
from test_sliding import Convolution, picture
from illama_seg.apis import sliding_logits

torch.set_num_threads(1)
model = Convolution((64, 64), (48, 48))
model.out_channels, model.conv = 64, torch.nn.Conv2d(3, 64, 1)
for size in ((256, 256), (4096, 256), (256, 6144)):
    for _, _, logits in sliding_logits(model, picture(size), band_bytes=2**24):
        logits.argmax(0)
    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_gigabyte_of_logits_is_the_default():
    assert inspect.signature(sliding_logits).parameters['band_bytes'].default == 2**30


@pytest.mark.slow
def test_memory_grows_neither_with_height_nor_with_width():
    paths = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-c', PEAK]
    process = subprocess.run(command, capture_output=True, text=True, env=paths)
    assert process.returncode == 0, process.stderr
    square, high, wide = map(int, re.findall(r'peak (\d+)', process.stdout))
    # All logits of the high picture, or of the wide one, would take 512 MiB more.
    assert high - square < 60 and wide - square < 60


def test_a_decoder_that_does_more_than_to_enlarge_is_asked_for_its_own_logits(
    segmentor, monkeypatch
):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    model = segmentor()
    head = type(model.decode_head)
    before = predict(model, image)

    def backwards(self, logits, metas):
        return -BaseDecodeHead.predict_by_feat(self, logits, metas)

    monkeypatch.setattr(head, 'predict_by_feat', backwards)
    expected = inference_model(model, image).pred_sem_seg.data[0].numpy()
    labels = predict(model, image)
    assert (labels != expected).mean() < 1e-3 and (labels != before).any()


@pytest.mark.parametrize(
    ('crop', 'stride'), [((16, 16), (4, 4)), ((16, 24), (11, 16)), ((16, 16), (16, 16))]
)
def test_the_logits_that_are_kept_stay_within_the_bound(crop, stride, monkeypatch):
    kept, bound = [], 200_000
    mean = windows._Strip._mean

    def counted(self, low, high):
        kept.append(sum(4 * logits.numel() for _, _, logits in self.done))
        return mean(self, low, high)

    monkeypatch.setattr(windows._Strip, '_mean', counted)
    ours(Convolution(crop, stride), picture((50, 700)), band_bytes=bound)
    assert 0.2 * bound < max(kept) <= bound
