"""Questions to one reading are those of whole segmentors, and their files."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file
from tiny_run import ROOT, run_tool

import illama_seg
from illama_seg import Question
from illama_seg.apis import load_config, load_segmentor
from illama_seg.errors import MissingFileError, UserError

SETS = {'things': tuple('abcde'), 'road': ('other', 'road')}
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
        num_queries={out},
    ),
    decode_head=dict(
        type='ClassTokenHead', in_channels=24, channels=8, num_classes={classes},
        out_channels={out}, dropout_ratio=0.0, upscale={upscale},
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid={sigmoid}),
    ),
    test_cfg=dict(mode='whole'),
)
"""


def save(folder, name, mask='strict', upscale=False, seed=0):
    """A config and checkpoint; those of one seed have the same backbone."""
    classes = SETS[name]
    config = folder / f'{name}.py'
    out = 1 if name == 'road' else len(classes)
    text = CONFIG.format(
        root=ROOT, mask=mask, classes=len(classes), out=out, upscale=upscale,
        sigmoid=out == 1,
    )  # fmt: skip
    config.write_text(text)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(config).model)
    torch.manual_seed(seed)
    for key, parameter in model.backbone.named_parameters():
        if key != 'query_offsets':
            torch.nn.init.normal_(parameter, std=0.4)
    torch.manual_seed(len(name))
    for parameter in (model.backbone.query_offsets, *model.decode_head.parameters()):
        torch.nn.init.normal_(parameter, std=1.0)
    palette = [[40 * n, 9, 0] for n in range(len(classes))]
    meta = dict(dataset_meta=dict(classes=classes, palette=palette))
    path = folder / f'{name}.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return config, path


def load(folder, name, **options):
    config, path = save(folder, name, **options)
    return load_segmentor(load_config(config), path, 'cpu')


@pytest.mark.parametrize('mask', ['strict', 'soft', 'bidirectional', 'chunked'])
def test_two_questions_to_one_reading_are_two_segmentors(tmp_path, mask):
    things = load(tmp_path, 'things', mask=mask, upscale=True)
    road = load(tmp_path, 'road', mask=mask)
    images = torch.randn(2, 3, 24, 40)
    with torch.no_grad():
        reading = things.backbone.read(images)
        found = illama_seg.ask(reading, [Question.of(things), Question.of(road)])
        for logits, model in zip(found, (things, road), strict=True):
            expected = model.decode_head(model.backbone(images))
            torch.testing.assert_close(logits, expected)
    assert found[0].shape == (2, 5, 12, 20) and found[1].shape == (2, 1, 3, 5)
    assert illama_seg.ask(reading, []) == []


def test_a_question_asks_of_the_rows_read_so_far(tmp_path):
    model = load(tmp_path, 'things')
    question, images = Question.of(model), torch.randn(1, 3, 32, 16)
    with torch.no_grad():
        reading = model.backbone.read(images[:, :, :8], total_rows=4)
        first = illama_seg.ask(reading, [question])[0]
        reading = model.backbone.read(images[:, :, 8:], reading)
        second = illama_seg.ask(reading, [question])[0]
        tokens = model.backbone.ask(reading, question.offsets)
        expected = model.decode_head([reading.maps[-1], tokens])
    assert first.shape[2] == 1 and second.shape[2] == 3
    torch.testing.assert_close(second, expected)


def test_a_file_holds_the_question_exactly_and_is_small(tmp_path):
    model = load(tmp_path, 'road')
    question = Question.of(model)
    question.save(tmp_path / 'q' / 'road.safetensors')
    assert (tmp_path / 'q' / 'road.safetensors').stat().st_size < 8_000
    again = Question.load(tmp_path / 'q' / 'road.safetensors')
    assert again.classes == SETS['road'] and again.palette == question.palette
    with torch.no_grad():
        reading = model.backbone.read(torch.randn(1, 3, 16, 24))
        ours, theirs = illama_seg.ask(reading, [question, again])
    assert torch.equal(ours, theirs)
    labels = again.labels(theirs, (13, 20))
    large = torch.nn.functional.interpolate(ours, (13, 20), mode='bilinear')
    assert torch.equal(labels, (large[:, 0] > 0).long())  # sigmoid over 0.5


def test_a_question_of_another_backbone_is_refused_and_of_a_rounded_one_is_not(
    tmp_path,
):
    model, other = load(tmp_path, 'things'), load(tmp_path, 'things', seed=1)
    question, images = Question.of(model), torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        reading = other.backbone.read(images)
        with pytest.raises(UserError, match='another backbone'):
            illama_seg.ask(reading, [question])
        reading = model.bfloat16().backbone.read(images.bfloat16())
        illama_seg.ask(reading, [question.bfloat16()])


def test_what_is_no_question_is_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    with pytest.raises(MissingFileError, match=r'a\.safetensors'):
        Question.load(path)
    save_file(dict(a=torch.ones(1)), path)
    with pytest.raises(UserError, match='no question'):
        Question.load(path)
    path.write_bytes(b'0123456789')
    with pytest.raises(UserError, match='damaged'):
        Question.load(path)
    model = load(tmp_path, 'things')
    model.backbone.query_offsets = None
    with pytest.raises(UserError, match='no class tokens'):
        Question.of(model)


def test_the_tools_read_each_image_once_and_answer_all(tmp_path, capsys):
    for name in SETS:
        config, path = save(tmp_path, name)
        out = tmp_path / f'{name}.safetensors'
        run_tool('checkpoints/question', config, path, out)
    image = np.random.default_rng(0).integers(0, 256, (30, 45, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    questions = [tmp_path / f'{name}.safetensors' for name in SETS]
    run_tool(
        'ask', config, path, tmp_path / 'image.png', '--out', tmp_path / 'out',
        '--questions', *questions,
    )  # fmt: skip
    numbers = json.loads((tmp_path / 'out' / 'asked.json').read_text())
    assert numbers['questions'] == {n: list(c) for n, c in SETS.items()}
    model = load_segmentor(load_config(config), path, 'cpu')
    for name in SETS:
        labels = cv2.imread(str(tmp_path / 'out' / name / 'image_labels.png'), -1)
        assert labels.shape == (30, 45)
        share = numbers['images']['image.png'][name]
        assert list(share) == list(SETS[name]) and abs(sum(share.values()) - 1) < 1e-3
        assert (tmp_path / 'out' / name / 'image_overlay.jpg').is_file()
    # The road's labels are those of its own segmentor.
    expected = illama_seg.apis.predict(model, image)
    assert (labels == expected).mean() > 0.99
    assert '2 questions asked' in capsys.readouterr().out
