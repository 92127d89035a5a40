"""The variables of the environment: obeyed, or said to have no effect."""

import shutil

import pytest
import torch
from tiny_run import fails, start_fresh
from tiny_squares import begin, block_of, make_squares, train, unformatted, write_config

from illama_seg.apis import build_tester, load_config
from illama_seg.machine import choices

ATTENTION, PRECISION = 'ILLAMA_SEG_ATTENTION', 'ILLAMA_SEG_PRECISION'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('squares')
    return write_config(folder / 'squares.py', make_squares(folder / 'data'))


@pytest.fixture(scope='module')
def half(config, tmp_path_factory):
    """The work dir of two iterations in bfloat16, by blocked attention."""
    folder = tmp_path_factory.mktemp('half')
    with pytest.MonkeyPatch.context() as patch, unformatted():
        patch.setenv(PRECISION, 'bfloat16')
        patch.setenv(ATTENTION, 'blocked')
        options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=9']
        train(config, folder, *options, flags=['--amp'])
    choices.forget()
    return folder


@pytest.fixture
def paused(half, tmp_path):
    """A copy of it."""
    yield shutil.copytree(half, tmp_path / 'run')
    choices.forget()


@pytest.mark.parametrize(
    ('asked', 'amp', 'options', 'reason'),
    [
        ('float32', True, {}, f'float32, by {PRECISION}'),
        ('', True, dict(optim_wrapper__dtype='float32'), 'float32, as set'),
        ('', False, {}, 'float32; AutocastOptimWrapper takes half'),
        ('float16', True, {}, f'float16, by {PRECISION}'),
    ],
)
def test_a_run_that_goes_on_in_another_precision_says_so(
    asked, amp, options, reason, config, paused, monkeypatch
):
    monkeypatch.setenv(PRECISION, asked)
    _, log = begin(config, paused, resume=True, amp=amp, **options)
    assert f'WARNING - trained in bfloat16, goes on in {reason}' in log
    assert block_of(log)['precision'].startswith(reason)


def test_a_run_that_goes_on_with_another_attention_says_so(config, paused, monkeypatch):
    monkeypatch.setenv(PRECISION, 'bfloat16')
    monkeypatch.setenv(ATTENTION, 'reference')
    _, log = begin(config, paused, resume=True, amp=True)
    assert block_of(log)['attention'].startswith(
        "soft mask by 'reference', trained with 'blocked', goes on with 'reference', "
        f'by {ATTENTION}'
    )
    assert 'trained in' not in log


def test_a_run_that_goes_on_as_before_says_nothing(config, paused, monkeypatch):
    monkeypatch.setenv(PRECISION, 'bfloat16')
    monkeypatch.setenv(ATTENTION, 'blocked')
    options = dict(train_cfg__max_iters=2, train_cfg__val_interval=9)
    more = dict(options, train_cfg__max_iters=3)
    _, log = begin(config, paused, resume=True, amp=True, **more)
    assert 'trained ' not in log
    lines = [line for line in log.splitlines() if 'resumed with' in line]
    assert [line.partition('resumed with ')[2] for line in lines] == [
        'train_cfg.max_iters=3, was 2'
    ]


@pytest.mark.parametrize(
    ('variable', 'value', 'expected'),
    [
        (PRECISION, 'half', 'expected one of auto, float32, bfloat16, float16'),
        (ATTENTION, 'fast', 'expected one of auto, fixed, blocked, flash, reference'),
    ],
)
@pytest.mark.parametrize('tool', ['train', 'test', 'infer'])
def test_an_unknown_value_is_met_before_the_data(
    tool, variable, value, expected, config, monkeypatch
):
    monkeypatch.setenv(variable, value)
    images = config.with_name('data') / 'val' / 'images'
    arguments = dict(test=['x.pth'], infer=['x.pth', images]).get(tool, [])
    message = fails(tool, config, *arguments, '--cfg-options', 'model=None')
    assert message.startswith(f'error: {variable}={value!r}: {expected}')


def test_a_test_without_amp_says_that_the_precision_asked_for_has_no_effect(
    config, half, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(PRECISION, 'bfloat16')
    start_fresh()
    cfg = load_config(config, work_dir=tmp_path)
    build_tester(cfg, half / 'iter_2.pth')
    said = f'precision: float32, without amp; {PRECISION}=bfloat16 has no effect'
    assert said in capsys.readouterr().out
    assert 'fp16' not in cfg.test_cfg
    assert torch.get_autocast_dtype('cpu') == torch.bfloat16  # torch's own default


def test_a_training_without_amp_says_so_too(config, tmp_path, monkeypatch):
    monkeypatch.setenv(PRECISION, 'bfloat16')
    _, log = begin(config, tmp_path)
    assert block_of(log)['precision'].endswith(f'{PRECISION}=bfloat16 has no effect')
