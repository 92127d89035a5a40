"""Trainings of both kinds, tiny, with everything that draws random numbers in them."""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from tiny_run import CONFIG, ROOT, start_fresh, tiny_options

from illama_seg.apis import build_trainer, load_config, parse_cfg_options

DIGITS = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
EMA = dict(type='EMAHook', momentum=0.1)
KINDS = ('segmentation', 'classification')
LENGTH = 12  # iterations
EVERY = 2  # iterations to an update


class PlainConfig(Config):
    """Its text is not formatted, which takes most of the time of a checkpoint."""

    @property
    def pretty_text(self):
        return f'cfg = {self._cfg_dict!r}'


def config(kind, data, work_dir, workers=0, options=()):
    """Soft mask, drop path, EMA, accumulated gradients; Mixup or random crops."""
    common = [
        'randomness.seed=3',
        'model.backbone.drop_path_rate=0.3',
        f'train_dataloader.num_workers={workers}',
        'train_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.by_epoch=False',
        f'default_hooks.checkpoint.interval={EVERY}',
        'log_level=WARNING',
    ]
    if kind == 'segmentation':
        path, soft_mask = CONFIG, dict(cutoff=8, by_epoch=False)
        more = [
            *tiny_options(data, LENGTH),
            f'optim_wrapper.accumulative_counts={EVERY}',
            'train_cfg.val_interval=6',
        ]
    else:
        path, soft_mask = DIGITS, dict(cutoff=1)
        more = [
            'model.backbone.arch.embed_dims=16',
            'model.backbone.arch.num_layers=2',
            'model.head.in_channels=16',
            'model.data_preprocessor.mixup=0.8',
            'model.data_preprocessor.cutmix=1.0',
            'model.data_preprocessor.erasing=0.5',
            'train_dataloader.dataset.indices=26',
            'train_dataloader.batch_size=4',
            f'effective_batch={4 * EVERY}',
            'val_dataloader.dataset.indices=10',
            'param_scheduler.0.warmup=1',
            'train_cfg.max_epochs=2',
            'train_cfg.val_interval=1',
        ]
    soft_mask = dict(type='SoftMaskHook', mode='linear', **soft_mask)
    cfg = load_config(path, parse([*more, *common, *options]), work_dir)
    cfg.custom_hooks = [soft_mask, EMA]
    return PlainConfig(cfg._cfg_dict, filename=cfg.filename)


def parse(options):
    """As --cfg-options does."""
    return parse_cfg_options(options)


def train(cfg, resume=False, hooks=(), amp=True, **more):
    """Build and train in this process, as if it were a new one."""
    start_fresh()
    runner = build_trainer(cfg, amp=amp, resume=resume, **more)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def newest(work_dir):
    """Path of the newest checkpoint."""
    return Path((Path(work_dir) / 'last_checkpoint').read_text())


def state_of(path):
    """Weights, averaged weights, optimiser and schedules of a checkpoint, flat."""
    content = torch.load(path, weights_only=False)
    keys = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return dict(flatten({key: content[key] for key in keys if key in content}))


def flatten(content, name=''):
    if isinstance(content, dict):
        for key, value in content.items():
            yield from flatten(value, f'{name}.{key}')
    elif isinstance(content, (list, tuple)):
        for index, value in enumerate(content):
            yield from flatten(value, f'{name}.{index}')
    else:
        yield name, content


def differing(first, second):
    """Names of what is not the same, bit for bit, in two checkpoints."""
    ours, theirs = state_of(first), state_of(second)
    names = [name for name in ours if name not in theirs]
    names += [name for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        a, b = ours[name], theirs[name]
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        if not same:
            names.append(name)
    return sorted(names)


class Progress(Hook):
    """Write a byte for each iteration that begins."""

    priority = 'HIGHEST'

    def __init__(self, pipe):
        self.pipe = pipe

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        os.write(self.pipe, b'.')


class At(Hook):
    """Call a function at a moment of an iteration, counted from 1."""

    def __init__(self, iteration, call, moment='before_train_iter', priority='HIGHEST'):
        self.priority = priority

        def moment_comes(runner, *args, **kwargs):
            done = runner.iter + (moment != 'after_val_iter')
            if done == iteration:
                call(runner)

        setattr(self, moment, moment_comes)


def in_child(function, log):
    """Fork a process that calls the function with the end of a pipe; (pid, other end).

    It has everything imported already. Its exit code is 1 for an exception.
    """
    readable, writable = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writable)
        return pid, readable
    code = 1
    try:
        os.close(readable)
        with open(log, 'ab', buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        torch.set_num_threads(1)
        function(writable)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for(readable, iterations):
    """Until that many iterations have begun; False if the process ends before."""
    return all(os.read(readable, 1) for _ in range(iterations))


def ended(pid, seconds=300):
    """Exit code of a child, negative for a signal; that of SIGKILL if it hangs."""
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(found[1])
