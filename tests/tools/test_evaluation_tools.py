"""Calibration and shape bias by their commands, on models trained here."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tiny_classifier import CONFIG, OPTIONS, as_arguments, build, save
from tiny_run import fails, run_tool

# fmt: off
WORDS = (
    'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine',
)
# fmt: on
SIDE = 16
SIZES = {
    'model.backbone.arch.embed_dims': 32,
    'model.backbone.arch.num_layers': 2,
    'model.backbone.img_size': SIDE,
    'model.backbone.patch_size': 4,
    'model.head.in_channels': 32,
    'test_dataloader.dataset.pipeline.1.input_size': SIDE,
}


DIGITS = load_digits()
NUM_TRAIN = 1400


def draw_conflicts(rng, known, shapes, textures):
    """(N, 16, 16) uint8: a digit, bright, with a pattern of its own all over."""
    written = slice(None, NUM_TRAIN) if known else slice(NUM_TRAIN, None)
    targets, drawn = DIGITS.target[written], DIGITS.images[written]
    patterns = np.random.default_rng(0).integers(0, 2, (10, 4, 4))
    images = []
    for shape, texture in zip(shapes, textures, strict=True):
        chosen = rng.choice(np.flatnonzero(targets == shape))
        digit = drawn[chosen].repeat(2, 0).repeat(2, 1) / 16
        pattern = np.tile(patterns[texture], (4, 4))
        images.append(130 * digit + 100 * pattern + rng.normal(8, 4, (SIDE, SIDE)))
    return np.clip(images, 0, 255).astype(np.uint8)


def train(cue, steps, path):
    """A micro iLLaMA that learnt to name the shapes, or the textures."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    model = build(SIZES).train()
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        cues = dict(shape=rng.integers(0, 10, 64), texture=rng.integers(0, 10, 64))
        images = draw_conflicts(rng, True, *cues.values())
        batch = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1)
        inputs = model.data_preprocessor(dict(inputs=batch))['inputs']
        loss = torch.nn.functional.cross_entropy(
            model(inputs), torch.from_numpy(cues[cue])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return save(model, path)


@pytest.fixture(scope='module')
def conflicts(tmp_path_factory):
    """Folder of digits not trained on, one of each pair of different digits."""
    folder = tmp_path_factory.mktemp('conflicts')
    rng = np.random.default_rng(2)
    pairs = [(a, b) for a in range(10) for b in range(10) if a != b]
    images = draw_conflicts(rng, False, *zip(*pairs, strict=True))
    for (shape, texture), image in zip(pairs, images, strict=True):
        path = folder / WORDS[shape] / f'{WORDS[shape]}{texture}-{WORDS[texture]}1.png'
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    (folder / 'categories.json').write_text(
        json.dumps({word: [str(number)] for number, word in enumerate(WORDS)})
    )
    return folder


def test_the_tool_tells_what_a_model_was_trained_to_prefer(conflicts, tmp_path, capsys):
    models = [
        train(cue, steps, tmp_path / cue / 'last.pth')
        for cue, steps in (('shape', 140), ('texture', 40))  # textures are easier
    ]
    categories = ['--categories', conflicts / 'categories.json']
    options = ['--out', tmp_path, '--cfg-options', *as_arguments(SIZES)]
    images = ['--images', conflicts]
    run_tool('analysis/shape_bias', CONFIG, *models, *images, *categories, *options)
    shape, texture = json.loads((tmp_path / 'shape_bias.json').read_text())['models']
    assert shape['shape_bias'] > 0.8 and texture['shape_bias'] < 0.2
    assert shape['images'] == texture['images'] == 90
    assert shape['shape'] > 30 and texture['texture'] > 80
    printed = capsys.readouterr().out
    assert 'shape/last: shape bias' in printed and '| nine ' in printed
    made = tmp_path / 'cue-conflict_texture_last_session-1.csv'
    run_tool('analysis/shape_bias', '--decisions', made, '--out', tmp_path / 'again')
    (row,) = json.loads((tmp_path / 'again/shape_bias.json').read_text())['models']
    assert row['shape_bias'] == texture['shape_bias']


def test_calibration_prints_the_table_and_writes_the_files(tmp_path, capsys):
    checkpoint = save(build(), tmp_path / 'last.pth')
    out = ['--out', tmp_path / 'out', '--bins', 5, '--held-out', 0.2]
    options = ['--cfg-options', *as_arguments(OPTIONS)]
    run_tool('analysis/calibration', CONFIG, checkpoint, *out, *options)
    assert 'after, T' in capsys.readouterr().out
    names = {path.name for path in (tmp_path / 'out').iterdir()}
    assert names == {
        'calibration.json',
        'calibration.png',
        'calibration_per_class.csv',
    }
    (model,) = json.loads((tmp_path / 'out/calibration.json').read_text())['models']
    assert (model['bins'], model['held_out']) == (5, 10)


def test_attention_rank_prints_the_table_and_writes_the_files(tmp_path, capsys):
    out = ['--out', tmp_path, '--num-images', 2, '--layers', 2, '--share', 0.5]
    options = ['--cfg-options', *as_arguments(OPTIONS)]
    run_tool('analysis/attention_rank', CONFIG, 'random', *out, *options)
    printed = capsys.readouterr().out
    assert 'random weights' in printed and 'layer 2' in printed
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'attention_rank.json', 'attention_rank.png'}
    (model,) = json.loads((tmp_path / 'attention_rank.json').read_text())['models']
    assert (model['images'], model['share']) == (2, 0.5)


def test_complexity_prints_both_and_writes_them(tmp_path, capsys):
    sizes = ['--dims', 16, '--sizes', 32, '--tokens', 9, '--patch-size', 8]
    run_tool('analysis/complexity', *sizes, '--out', tmp_path)
    assert '|  9 | 16 |' in capsys.readouterr().out
    rows = json.loads((tmp_path / 'complexity.json').read_text())['rows']
    assert [row['tokens'] for row in rows] == [17, 9]
    assert '--dims [0]' in fails('analysis/complexity', '--dims', 0)


def test_a_loss_landscape_is_printed_written_and_gone_on_with(tmp_path, capsys):
    checkpoint = save(build(), tmp_path / 'last.pth')
    out = ['--out', tmp_path / 'out', '--points', 3, '--num-images', 8]
    options = ['--cfg-options', *as_arguments(OPTIONS)]
    call = [CONFIG, checkpoint, *out, '--split', 'test', '--radius', 0.5]
    run_tool('analysis/loss_landscape', *call, *options)
    assert 'centre' in capsys.readouterr().out
    names = [path.suffix for path in (tmp_path / 'out').iterdir()]
    assert sorted(names) == ['.json', '.jsonl', '.png']
    message = fails('analysis/loss_landscape', *call, '--seed', 1, *options)
    assert 'seed=0 instead of 1' in message and '(restart)' in message


def test_mistakes_end_with_one_line(tmp_path):
    message = fails('analysis/calibration', CONFIG, tmp_path / 'none.pth')
    assert 'none.pth' in message and len(message.splitlines()) == 1
    message = fails('analysis/calibration', CONFIG, 'timm:resnet_50=random')
    assert "timm has no model 'resnet_50'" in message
    message = fails('analysis/shape_bias', CONFIG, 'timm:resnet18=random')
    assert 'a model needs a folder too (images)' in message


def test_a_config_without_a_model_ends_with_the_usage(capsys):
    with pytest.raises(SystemExit) as error:
        run_tool('analysis/shape_bias', CONFIG)
    assert error.value.code == 2 and 'expected a MODEL' in capsys.readouterr().err
