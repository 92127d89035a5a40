"""The config is the truth: other scripts train what tools/train.py trains."""

from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from tiny_run import CONFIG, ROOT, make_ade20k, run_python, tiny_options

MMSEG_TRAIN = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'train.py'
ITERATIONS = 5
HOOKS = ('SafeCheckpointHook', 'ResumeHook', 'FiniteLossHook', 'InterruptionHook')


@pytest.fixture(scope='module')
def ours(tmp_path_factory):
    """Data, and the work dir of tools/train.py."""
    folder = tmp_path_factory.mktemp('ours')
    data = make_ade20k(folder / 'ade20k')
    options = [*tiny_options(data, ITERATIONS), 'randomness.seed=3']
    train(ROOT / 'tools' / 'train.py', CONFIG, folder / 'work', options)
    return folder / 'work'


def train(script, config, work_dir, options=()):
    arguments = ['--cfg-options', *options] if options else []
    done = run_python(
        script, config, '--work-dir', work_dir, *arguments, cwd=work_dir.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def weights(work_dir):
    path = work_dir / f'iter_{ITERATIONS}.pth'
    return torch.load(path, weights_only=True)['state_dict']


def assert_equal_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_a_config_that_was_resolved_and_dumped_trains_the_same_again(ours, tmp_path):
    train(ROOT / 'tools' / 'train.py', ours / CONFIG.name, tmp_path / 'again')
    assert_equal_weights(ours, tmp_path / 'again')


def test_mmsegs_own_script_trains_the_same_weights(ours, tmp_path):
    if not MMSEG_TRAIN.is_file():
        pytest.skip('this mmseg was installed without its tools')
    done = train(MMSEG_TRAIN, ours / CONFIG.name, tmp_path / 'theirs')
    assert_equal_weights(ours, tmp_path / 'theirs')
    assert 'learning rate' in done.stdout + done.stderr  # the block of OverviewHook


def test_hooks_loop_and_sampler_stand_in_the_config_by_name(ours):
    cfg = Config.fromfile(ours / CONFIG.name)
    kinds = {hook['type'] for hook in cfg.default_hooks.values() if hook}
    assert {*HOOKS, 'OverviewHook', 'SafeLoggerHook', 'PlainCheckpointHook'} <= kinds
    assert cfg.train_cfg.type == 'ResumableIterTrainLoop'
    assert cfg.train_dataloader.sampler.type == 'SeededSampler'
