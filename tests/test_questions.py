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
from illama_seg.backbones import ILLaMA
from illama_seg.errors import MissingFileError, UserError
from illama_seg.questions import KEY

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
        threshold={threshold},
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
        sigmoid=out == 1, threshold=0.7 if out == 1 else None,
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
        whole = model.decode_head(model.backbone(images))
        top = model.decode_head(model.backbone(images[:, :, :8]))
    # Positions of the grid are those of the whole image, so the top alone differs.
    assert first.shape[2] == 1 and not torch.allclose(first, top)
    torch.testing.assert_close(second, whole[:, :, 1:])


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


@pytest.mark.parametrize('upscale', [False, True])
def test_labels_lie_where_their_patches_do(tmp_path, upscale):
    """The image of 13x21 was padded to 2x3 patches of 8 pixels."""
    question = Question.of(load(tmp_path, 'things', upscale=upscale))
    step = 2 if upscale else 8
    logits = torch.randn(1, 5, 16 // step, 24 // step)
    large = torch.nn.functional.interpolate(logits, (16, 24), mode='bilinear')
    expected = large.argmax(1)[:, :13, :21]
    assert torch.equal(question.labels(logits, (13, 21)), expected)
    # The same of an image that was read in half its size.
    large = torch.nn.functional.interpolate(
        large[:, :, :13, :21], (26, 42), mode='bilinear'
    )
    found = question.labels(logits, (26, 42), (13, 21))
    assert torch.equal(found, large.argmax(1))


def test_one_channel_has_the_threshold_of_its_head(tmp_path):
    question = Question.of(load(tmp_path, 'road'))
    assert question.head.threshold == 0.7
    logits = torch.logit(torch.tensor([0.2, 0.6, 0.69, 0.71]))[None, None, None]
    labels = question.labels(logits.repeat_interleave(2, 3), (8, 64))[0, 4, 8::16]
    assert labels.tolist() == [0, 0, 0, 1]


OTHERS = {
    'attn_mask=': dict(attn_mask='chunked'),
    'memory_rows=': dict(memory_rows=2),
    'soft_mask_rate=': dict(attn_mask='soft', soft_mask_rate=0.5),
    'rotary_grid=': dict(rotary_grid='neighbour'),
    'patch_size=': dict(patch_size=4),
}


@pytest.mark.parametrize('name', OTHERS)
def test_another_argument_of_the_backbone_is_named(tmp_path, name):
    model = load(tmp_path, 'things', mask=OTHERS[name].get('attn_mask', 'strict'))
    question = Question.of(model)
    if 'soft_mask_rate' in OTHERS[name]:
        model.backbone.set_soft_mask_rate(0.5)
        reading = model.backbone.read(torch.randn(1, 3, 16, 16))
    else:
        options = dict(
            arch=dict(embed_dims=24, num_layers=2, num_heads=2), img_size=32,
            patch_size=8, out_indices=(1,), attn_mask='strict',
        ) | OTHERS[name]  # fmt: skip
        other = ILLaMA(**options)
        if name == 'attn_mask=':
            question.arguments['attn_mask'] = 'strict'
        reading = other.read(torch.randn(1, 3, 16, 16))
    with pytest.raises(UserError, match=f'another backbone.*{name}'):
        illama_seg.ask(reading, [question])


@pytest.mark.parametrize(
    'part', ['patch_embed.proj.weight', 'blocks.0.mlp.fc1.weight', 'cls_token']
)
def test_a_backbone_that_was_trained_further_is_told(tmp_path, part):
    model = load(tmp_path, 'things')
    question, images = Question.of(model), torch.randn(1, 3, 16, 16)
    parameter = model.backbone.get_parameter(part)
    scale = parameter.detach().std()
    with torch.no_grad():
        illama_seg.ask(model.backbone.read(images), [question])
        parameter += 0.03 * scale * torch.randn_like(parameter)
        with pytest.raises(UserError, match=r'1 of .* tensors differ'):
            illama_seg.ask(model.backbone.read(images), [question])


def test_no_code_of_a_file_is_run(tmp_path):
    path, made = tmp_path / 'evil.safetensors', tmp_path / 'made'
    head = dict(type='os.makedirs', name=str(made))
    note = dict(head=head, classes=['a'], palette=[[0, 0, 0]], arguments={})
    save_file({'offsets': torch.ones(1, 2)}, path, {KEY: json.dumps(note)})
    with pytest.raises(UserError, match=r"evil.*ClassTokenHead, got 'os.makedirs'"):
        Question.load(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [('{', 'damaged'), ('[]', 'damaged'), ('{"head": {}}', 'damaged')],
)
def test_a_damaged_note_is_told(tmp_path, text, message):
    path = tmp_path / 'a.safetensors'
    save_file({'offsets': torch.ones(1, 2)}, path, {KEY: text})
    with pytest.raises(UserError, match=message):
        Question.load(path)


def test_what_is_no_list_of_questions_is_told(tmp_path):
    model = load(tmp_path, 'things')
    question = Question.of(model)
    reading = model.backbone.read(torch.randn(1, 3, 16, 16))
    with pytest.raises(
        UserError, match='a list of questions, got Reading and Question'
    ):
        illama_seg.ask(reading, question)
    with pytest.raises(UserError, match='question 0 is of str'):
        illama_seg.ask(reading, ['road.safetensors'])
    with pytest.raises(UserError, match=r'q\.pth: expected the name of a .safetensors'):
        question.save(tmp_path / 'q.pth')


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
