"""load_from: what is loaded is what the log says, and what cannot be is refused."""

import argparse
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from safetensors.torch import save_file
from tiny_classifier import CONFIG as DIGITS, OPTIONS as DIGITS_OPTIONS, build, save
from tiny_run import start_fresh
from tiny_squares import (
    AtFirst,
    Began,
    begin,
    block_of,
    log_of,
    make_squares,
    weights_of,
    write_config,
)

from illama_seg.apis import load_config
from illama_seg.layers import resize_pos_embed

HEADS = [
    f'{head}.conv_seg.{kind}'
    for head in ('decode_head', 'auxiliary_head')
    for kind in ('weight', 'bias')
]
ARCH = 'model.backbone.arch'


@pytest.fixture(scope='module')
def squares(tmp_path_factory):
    return make_squares(tmp_path_factory.mktemp('squares') / 'data', classes=3)


@pytest.fixture(scope='module')
def three(squares, tmp_path_factory):
    """A config of three classes and crops of 64."""
    folder = tmp_path_factory.mktemp('three')
    return write_config(folder / 'three.py', squares, classes=3)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A checkpoint of five classes and crops of 64, its grid not noted."""
    folder = tmp_path_factory.mktemp('five')
    config = write_config(folder / 'five.py', make_squares(folder / 'data'))
    runner, _ = begin(config, folder / 'run')
    torch.save({'state_dict': dict(runner.model.state_dict())}, folder / 'five.pth')
    return folder / 'five.pth'


def content(file):
    return torch.load(file, weights_only=True)['state_dict']


def backbone_of(file):
    state = content(file)
    inner = {k: v for k, v in state.items() if k.startswith('backbone.')}
    return {key.removeprefix('backbone.'): value for key, value in inner.items()}


def test_heads_of_another_number_of_classes_are_left_out_and_named(
    three, file, tmp_path
):
    runner, log = begin(three, tmp_path, load_from=str(file))
    found, expected = weights_of(runner), content(file)
    for key, value in expected.items():
        same = value.shape == found[key].shape and torch.equal(value, found[key])
        assert same == (key not in HEADS), key
    total = len(found)
    row = block_of(log)['weights']
    assert f'five.pth: loaded {total - 4} of {total} model keys, 0 resized' in row
    assert f'4 of another size left out ({", ".join(HEADS)})' in row
    assert 'conv_seg.weight (5, 16, 1, 1) -> (3, 16, 1, 1)' in log


def test_mmsegs_own_script_loads_the_same(squares, file, tmp_path):
    """As its tools/train.py builds and starts a run."""
    config = write_config(tmp_path / 'a.py', squares, classes=3, crop=(96, 64))
    start_fresh()
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.load_from = str(tmp_path / 'run'), str(file)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(AtFirst())
    with pytest.raises(Began):
        runner.train()
    theirs, log = weights_of(runner), log_of(tmp_path / 'run')
    assert '1 resized (backbone.pos_embed)' in block_of(log)['weights']
    ours, _ = begin(config, tmp_path / 'ours', load_from=str(file))
    ours = weights_of(ours)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize('crop', [(96, 64), (32, 48)])
def test_positions_of_another_crop_are_resized_and_keep_the_class_slot(
    crop, squares, file, tmp_path
):
    config = write_config(tmp_path / 'other.py', squares, classes=3, crop=crop)
    runner, log = begin(config, tmp_path, load_from=str(file))
    old, new = content(file), weights_of(runner)
    key, grid = 'backbone.pos_embed', (crop[0] // 16, crop[1] // 16)
    expected = resize_pos_embed(old[key], (4, 4), grid, 'last')
    assert torch.equal(new[key], expected)
    assert torch.equal(new[key][:, -1], old[key][:, -1])
    assert f'1 resized ({key})' in block_of(log)['weights']


@pytest.mark.parametrize('form', ['ours', 'released', 'safetensors', 'module'])
def test_a_file_of_the_backbone_alone_is_loaded(form, three, file, tmp_path):
    inner, path = backbone_of(file), tmp_path / 'backbone.pth'
    if form == 'released':  # with a classifier, as timm's files are
        more = {'head.weight': torch.ones(10, 48), 'norm.weight': torch.ones(48)}
        torch.save({'model': inner | more, 'args': argparse.Namespace(a=1)}, path)
    elif form == 'safetensors':
        path = path.with_suffix('.safetensors')
        save_file({k: v.contiguous() for k, v in inner.items()}, path)
    else:
        prefix = 'module.' if form == 'module' else ''
        torch.save(OrderedDict((prefix + k, v) for k, v in inner.items()), path)
    runner, log = begin(three, tmp_path / 'run', load_from=str(path))
    found = weights_of(runner)
    for key, value in inner.items():
        assert torch.equal(found[f'backbone.{key}'], value), key
    row = block_of(log)['weights']
    assert f'loaded {len(inner)} of {len(found)} model keys' in row
    assert f'{len(found) - len(inner)} missing (neck.' in row


def test_averages_start_from_what_was_loaded(squares, file, tmp_path):
    config = write_config(tmp_path / 'a.py', squares, classes=3, crop=(96, 64))
    ema = dict(type='EMAHook', momentum=0.1)
    runner, _ = begin(config, tmp_path, load_from=str(file), default_hooks__ema=ema)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    averages, found = hook.ema_model.module.state_dict(), weights_of(runner)
    assert all(torch.equal(averages[k], found[k]) for k in found if k not in HEADS)


def refused(config, work_dir, **options):
    start_fresh()
    with pytest.raises(ValueError) as error:
        begin(config, work_dir, **options)
    return str(error.value)


def test_a_file_of_which_nothing_fits_is_refused(three, tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save({'state_dict': {'backbone.layer1.0.conv1.weight': torch.ones(1)}}, path)
    message = refused(three, tmp_path / 'run', load_from=str(path))
    assert f'{path} holds no key of the backbone' in message
    assert 'set load_from=None' in message


def test_heads_alone_are_refused(three, file, tmp_path):
    path, state = tmp_path / 'heads.pth', content(file)
    heads = {k: v for k, v in state.items() if not k.startswith('backbone.')}
    torch.save(dict(state_dict=heads), path)
    message = refused(three, tmp_path / 'run', load_from=str(path))
    assert f'{path} holds no key of the backbone' in message


def test_a_backbone_of_another_size_is_refused(three, file, tmp_path):
    inner = {k: v[..., :24] for k, v in backbone_of(file).items()}
    path = tmp_path / 'narrow.pth'
    torch.save(inner, path)
    message = refused(three, tmp_path / 'run', load_from=str(path))
    assert f'{path} does not fit the model' in message
    assert '(24 wide, 4 blocks)' in message and 'set load_from=None' in message


def test_weights_in_8_bits_are_refused(three, file, tmp_path):
    inner = backbone_of(file)
    inner['blocks.0.attn.qkv.weight'] = inner['blocks.0.attn.qkv.weight'].to(torch.int8)
    torch.save(inner, tmp_path / 'int8.pth')
    message = refused(three, tmp_path / 'run', load_from=str(tmp_path / 'int8.pth'))
    assert 'blocks.0.attn.qkv.weight in 8-bit integers' in message


# Classification


@pytest.mark.parametrize('released', [False, True])
def test_a_classifier_of_other_classes_and_size_is_loaded(released, tmp_path):
    model = build(DIGITS_OPTIONS | {'model.head.num_classes': 7})
    file = save(model, tmp_path / 'seven.pth')
    state = model.state_dict()
    if released:
        named = {
            key.removeprefix('backbone.').replace('head.fc.', 'head.'): value
            for key, value in state.items()
        }
        torch.save(dict(model=named), file)
    options = DIGITS_OPTIONS | {
        'load_from': str(file),
        'model.backbone.img_size': 48,
    }
    options = {key.replace('.', '__'): value for key, value in options.items()}
    runner, log = begin(DIGITS, tmp_path / 'run', **options)
    found, row = weights_of(runner), block_of(log)['weights']
    left_out = ('head.fc.weight', 'head.fc.bias')
    for key, value in state.items():
        if key == 'backbone.pos_embed':
            assert found[key].shape != value.shape
            assert torch.equal(found[key][:, -1], value[:, -1])
        elif key not in left_out:
            assert torch.equal(found[key], value), key
    assert f'loaded {len(state) - 2} of {len(state)} model keys' in row
    assert '1 resized (backbone.pos_embed), 0 missing' in row
    assert f'2 of another size left out ({", ".join(left_out)})' in row
    assert 'it has 7 classes in the checkpoint and 10 in the model' in log


# Runs that need all weights


def test_a_run_is_not_resumed_with_another_model(three, file, tmp_path):
    whole = {
        'meta': dict(epoch=0, iter=2),
        'message_hub': {},
        'optimizer': {},
        'state_dict': content(file),
    }
    torch.save(whole, tmp_path / 'iter_2.pth')
    message = refused(
        three, tmp_path / 'run', resume=True, load_from=str(tmp_path / 'iter_2.pth')
    )
    assert 'iter_2.pth cannot be resumed' in message and '4 keys do not fit' in message
    assert 'the file has (5, 16, 1, 1), the model (3, 16, 1, 1)' in message
    assert f'set load_from={tmp_path / "iter_2.pth"} and leave resume out' in message


@pytest.mark.parametrize('fits', [True, False])
def test_mmsegs_own_test_loads_all_of_a_checkpoint_or_refuses(
    fits, three, file, squares, tmp_path
):
    """As its tools/test.py does: load_from, and no training."""
    path = file
    if fits:
        runner, _ = begin(three, tmp_path / 'a')
        path = tmp_path / 'three.pth'
        expected = weights_of(runner)
        torch.save(dict(state_dict=expected), path)
    start_fresh()
    runner = Runner.from_cfg(
        load_config(three, {'load_from': str(path)}, tmp_path / 'test')
    )
    if fits:
        runner.load_or_resume()
        found = weights_of(runner)
        assert all(torch.equal(found[key], expected[key]) for key in expected)
        return
    with pytest.raises(ValueError, match=r'five\.pth cannot be tested: .*4 keys do'):
        runner.test()
