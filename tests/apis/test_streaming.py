"""Labels come with the rows of an image, and no later pixel changes them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from mmengine.registry import MODELS, DefaultScope

from illama_seg.apis.streaming import StreamSegmentor
from illama_seg.errors import UserError

PATCH, CLASSES = 8, 4


def build(kind='LinearHead', **backbone):
    names = ('num_classes', 'out_channels', 'threshold')
    given = {name: backbone.pop(name) for name in names if name in backbone}
    if 'out_channels' in given:
        given['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    options = dict(attn_mask='strict', pos_axes='columns') | backbone
    tokens = kind == 'ClassTokenHead'
    head = dict(type=kind, in_channels=24, num_classes=CLASSES, dropout_ratio=0.1)
    head |= given
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[120.0] * 3,
            std=[60.0] * 3,
            bgr_to_rgb=True,
        ),
        backbone=dict(
            type='ILLaMA',
            arch=dict(embed_dims=24, num_layers=2, num_heads=2),
            img_size=32,
            patch_size=PATCH,
            out_indices=(1,),
            **({'num_queries': CLASSES} if tokens else {}),
            **options,
        ),
        decode_head=head | (dict(channels=8) if tokens else {}),
        test_cfg=dict(mode='whole'),
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    if tokens:  # else one class is everywhere
        model.decode_head.logit_norm.reset_parameters()
    return model


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def stream(model, image, heights, height=None):
    """Labels, and how many of their rows there were after each push."""
    segmentor, parts, given, top = StreamSegmentor(model, height), [], [], 0
    for count in heights:
        parts.append(segmentor.push(image[top : top + count]))
        top += count
        given.append(segmentor.rows)
    parts.append(segmentor.finish())
    return np.concatenate([part for part in parts if len(part)]), given


KINDS = ['LinearHead', 'ClassTokenHead']
MASKS = [dict(), dict(attn_mask='chunked', chunk_rows=2), dict(memory_rows=2)]


@pytest.mark.parametrize('mask', MASKS, ids=str)
@pytest.mark.parametrize('kind', KINDS)
def test_the_labels_are_those_of_the_equations(kind, mask):
    model, image = build(kind, **mask), picture(52, 37)
    chunk = mask.get('chunk_rows', 1)
    found, _ = stream(model, image, [52])
    pixels = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()
    pixels = ((pixels - 120) / 60)[None]
    rows, band = 7, chunk * PATCH
    with torch.no_grad():
        whole = model.backbone.read(pixels).maps[-1]
        expected, logits = [], None
        for top in range(0, rows, chunk):
            maps = whole[:, :, top : top + chunk]
            inputs = [maps]
            if kind == 'ClassTokenHead':  # asked of an image that ends here
                end = pixels[:, :, : (top + chunk) * PATCH]
                reading = model.backbone.read(end)
                inputs.append(model.backbone.ask(reading, model.backbone.query_offsets))
            own = model.decode_head(inputs)
            known = own if logits is None else torch.cat([logits[:, :, -1:], own], 2)
            size = known.size(2) * PATCH, known.size(3) * PATCH
            large = F.interpolate(known, size, mode='bilinear', align_corners=False)
            expected.append(large[:, :, -own.size(2) * PATCH :])
            logits = own
    labels = torch.cat(expected, 2)[0].argmax(0)[:52, :37]
    assert band == StreamSegmentor(model).band_rows
    np.testing.assert_array_equal(found, labels.numpy())


@pytest.mark.parametrize('mask', MASKS, ids=str)
def test_labels_come_as_soon_as_their_band_is_complete(mask):
    model, image = build(**mask), picture(40, 24)
    band = PATCH * mask.get('chunk_rows', 1)
    _, given = stream(model, image, [1] * 40)
    assert given == [(n + 1) // band * band for n in range(40)]


@given(heights=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_the_labels_are_the_same_however_the_rows_come(heights):
    model, image = build(memory_rows=3), picture(sum(heights), 20)
    np.testing.assert_array_equal(
        stream(model, image, heights)[0], stream(model, image, [sum(heights)])[0]
    )


@pytest.mark.parametrize('mask', MASKS, ids=str)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('row', [1, 16, 33, 47])
def test_no_later_pixel_changes_a_label_that_was_given(kind, mask, row):
    model, image = build(kind, **mask), picture(48, 24)
    other = image.copy()
    other[row:] = picture(48, 24, seed=1)[row:]
    band = PATCH * mask.get('chunk_rows', 1)
    a, b = (stream(model, x, [48])[0] for x in (image, other))
    before = row // band * band
    np.testing.assert_array_equal(a[:before], b[:before])
    assert (a[before:] != b[before:]).any() or row == 47


def test_a_height_allows_positions_of_a_grid():
    model, image = build(pos_axes='grid'), picture(24, 24)
    found, _ = stream(model, image, [5, 19], height=24)
    assert found.shape == (24, 24)
    with pytest.raises(UserError, match=r"its height, or a model with .*'columns'"):
        StreamSegmentor(model)


@pytest.mark.parametrize('kind', KINDS)
def test_no_later_row_changes_what_a_whole_image_says_above(kind):
    """The model itself, not the order of calls, hides what comes later."""
    model, image = build(kind), picture(48, 24)
    other = image.copy()
    other[32:] = picture(48, 24, seed=1)[32:]
    maps = []
    with torch.no_grad():
        for pixels in (image, other):
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
            maps.append(model.backbone(x)[0])
    torch.testing.assert_close(maps[0][:, :, :4], maps[1][:, :, :4])
    assert not torch.allclose(maps[0][:, :, 4:], maps[1][:, :, 4:])


def test_one_channel_has_the_threshold_of_its_head():
    model, image = build(num_classes=2, out_channels=1, threshold=0.38), picture(24, 24)
    labels, _ = stream(model, image, [24])
    with torch.no_grad():
        prepared = model.data_preprocessor(
            dict(inputs=[torch.from_numpy(image.transpose(2, 0, 1).copy())])
        )['inputs']
        logits = model.decode_head(model.backbone(prepared))
    # In the middle of a patch of the first band, logits are those of the patch's row.
    share = logits.sigmoid()[0, 0, 0]
    assert share.min() < 0.38 < share.max() < 0.5
    found = labels[0].reshape(3, PATCH)[:, [3, 4]].mean(1)
    np.testing.assert_array_equal(found > 0.5, (share > 0.38).numpy())


def test_parts_join_also_where_the_last_band_is_whole():
    model, image = build(), picture(16, 24)
    segmentor = StreamSegmentor(model)
    parts = [segmentor.push(image[:0]), segmentor.push(image), segmentor.finish()]
    assert np.concatenate(parts).shape == (16, 24)
    with pytest.raises(UserError, match=r'8 rows more than the 16 .* has ended'):
        segmentor.push(image[:8])


def test_rows_beyond_the_height_are_refused_before_any_is_read():
    segmentor = StreamSegmentor(build(), height=16)
    with pytest.raises(UserError, match='24 rows more than the 0 so far'):
        segmentor.push(picture(24, 24))
    assert segmentor.push(picture(16, 24)).shape == (16, 24)


@pytest.mark.parametrize('height', ['24', 24.5, 0, -8])
def test_a_height_that_is_no_number_of_rows_is_refused(height):
    with pytest.raises(UserError, match='expected a number of rows'):
        StreamSegmentor(build(), height)


def test_a_model_in_training_streams_without_dropout():
    model, image = build(), picture(16, 24)
    expected, _ = stream(model, image, [16])
    np.testing.assert_array_equal(stream(model.train(), image, [16])[0], expected)


def test_what_is_kept_is_bounded():
    model = build(memory_rows=3)
    segmentor = StreamSegmentor(model)
    kept = []
    for _ in range(8):
        segmentor.push(picture(PATCH, 24))
        kept.append(segmentor.kept_rows)
    assert kept == [1, 2, 3, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(attn_mask='soft', pos_axes='grid'), r'looks ahead \(soft\)'),
        (dict(attn_mask='chunked'), 'chunk_rows=None lets patches see the whole'),
    ],
)
def test_a_model_that_looks_ahead_is_refused(options, text):
    with pytest.raises(UserError, match=text):
        StreamSegmentor(build(**options))


@pytest.mark.parametrize(
    ('part', 'name', 'value', 'text'),
    [
        ('decode_head', 'align_corners', True, 'align_corners=True: expected False'),
        ('data_preprocessor', 'test_cfg', dict(size=(64, 64)), 'pads the whole image'),
        ('.', 'neck', torch.nn.Identity(), 'expected model.neck=None'),
        ('.', 'decode_head', torch.nn.Identity(), 'Identity reads the rows below'),
    ],
)
def test_parts_that_read_ahead_are_refused(part, name, value, text):
    model = build()
    setattr(model if part == '.' else getattr(model, part), name, value)
    with pytest.raises(UserError, match=text):
        StreamSegmentor(model)


@pytest.mark.parametrize(
    ('rows', 'text'),
    [
        (np.zeros((3, 24), np.uint8), r'shape \(3, 24\)'),
        (np.zeros((3, 24, 3), np.float32), 'dtype float32'),
        (np.zeros((3, 25, 3), np.uint8), 'rows of 25 pixels: expected 24'),
    ],
)
def test_rows_that_do_not_continue_are_refused(rows, text):
    segmentor = StreamSegmentor(build())
    segmentor.push(picture(PATCH, 24))
    with pytest.raises(UserError, match=text):
        segmentor.push(rows)
    assert segmentor.push(picture(PATCH, 24)).shape == (PATCH, 24)
