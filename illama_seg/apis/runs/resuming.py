"""Trainings that go on where they were stopped, and stop before harm is done."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from illama_seg.checkpoints import open_checkpoint
from illama_seg.engine import (
    POINTER,
    RESUMABLE,
    CorruptImagesHook,
    FiniteLossHook,
    InterruptionHook,
    ResumeHook,
)
from illama_seg.engine.logs import survive_full_disk
from illama_seg.errors import UserError
from illama_seg.quiet import quiet_terminal

SKIP_CORRUPT = 0.01  # what --skip-corrupt allows


def build_long_run(cfg: Config, runner_type: type[Runner] = Runner) -> Runner:
    """Build a training that can be killed at any moment, with its guards.

    The config's ``skip_corrupt`` is the share of the training images that may be
    corrupt, and are skipped; without it the first one stops the training.

    Raises:
        ValueError: ``skip_corrupt`` is out of its range; the checkpoints to resume from
            are damaged, or hold weights only.
    """
    make_resumable(cfg)
    limit = cfg.get('skip_corrupt')
    hooks: list[Hook] = [ResumeHook(), FiniteLossHook(), InterruptionHook()]
    hooks += [] if limit is None else [CorruptImagesHook(limit)]
    with quiet_terminal(runner_type):
        runner = runner_type.from_cfg(cfg)
    survive_full_disk(runner.logger)
    for hook in hooks:
        runner.register_hook(hook)
    resume_from_newest(runner)
    check_resumable(runner)
    return runner


def make_resumable(cfg: Config) -> None:
    """Put the package's loop and hooks in the places of mmengine's.

    They take the same arguments. Loops and hooks of other types are left as they are.
    """
    if 'type' not in cfg.train_cfg and 'by_epoch' in cfg.train_cfg:
        by_epoch = cfg.train_cfg.pop('by_epoch')
        cfg.train_cfg.type = f'{"Epoch" if by_epoch else "Iter"}BasedTrainLoop'
    loop = cfg.train_cfg.get('type')
    if loop in RESUMABLE:
        cfg.train_cfg.type = RESUMABLE[loop]
    use_safe_hooks(cfg)


def use_safe_hooks(cfg: Config) -> None:
    """Put the package's log and checkpoint hooks in the places of mmengine's."""
    hooks = cfg.setdefault('default_hooks', {})
    # mmengine's own defaults, where a config does not speak of them.
    hooks.setdefault('logger', dict(type='LoggerHook'))
    hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    for hook in filter(None, (hooks['logger'], hooks['checkpoint'])):
        if hook.get('type') in ('LoggerHook', 'CheckpointHook'):
            hook.type = f'Safe{hook.type}'


def resume_from_newest(runner: Runner) -> None:
    """Let a runner resume from its newest whole checkpoint.

    Does nothing where the config names one in ``load_from``, and where the work dir has
    none. Every process takes the main one's choice.

    Raises:
        ValueError: there are checkpoints, and all are damaged.
    """
    if not runner._resume or runner._load_from is not None:
        return
    answer: list[str | None] = [None, None]
    if is_main_process():
        try:
            found = newest_checkpoint(runner.work_dir)
            answer = [str(found) if found else None, None]
        except ValueError as error:
            answer = [None, str(error)]
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    runner._load_from = answer[0]


def check_resumable(runner: Runner) -> None:
    """Refuse to resume from a file that has no more than weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file, what it lacks and the way out.
    """
    path = runner._load_from
    if not runner._resume or path is None:
        return
    content = open_checkpoint(path).content
    needed = ('state_dict', 'meta', 'message_hub', 'optimizer')
    lacking = [key for key in needed if not isinstance(content.get(key), dict)]
    if 'meta' not in lacking:
        place = [content['meta'].get(key) for key in ('epoch', 'iter')]
        if not all(isinstance(number, int) and number >= 0 for number in place):
            lacking = ['meta.epoch and meta.iter', *lacking]
    if lacking:
        raise UserError(
            f'{path} cannot be resumed: {", ".join(lacking)} of a training are not in '
            'it, as in a file of weights only. To begin a training with its weights, '
            f'use load_from={path} without --resume'
        )


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """Newest checkpoint to resume from that is whole, with a warning if it is older.

    First the file in the work dir that ``last_checkpoint`` names, or the one elsewhere,
    then ``iter_*.pth`` and ``epoch_*.pth``, the last written first.

    Raises:
        ValueError: all are damaged; names them.
    """
    folder = Path(work_dir)
    candidates = []
    pointer = folder / POINTER
    if pointer.is_file():
        named = Path(pointer.read_text(errors='replace').strip('\0 \n') or '.')
        # The folder's own first: a copy's pointer names the original's.
        here = folder / (named.name or '.')
        candidates = [p for p in (here, named) if p.is_file()][:1]
        if not candidates:
            _warn(f'{pointer} names {named}, which is not there')
    others = [
        path
        for path in folder.glob('*.pth')
        if re.fullmatch(r'(iter|epoch)_\d+', path.stem) and path.is_file()
    ]
    others.sort(key=lambda p: (p.stat().st_mtime, int(p.stem.split('_')[1])))
    others.reverse()
    named_files = {path.resolve() for path in candidates}
    candidates += [path for path in others if path.resolve() not in named_files]
    damaged: list[str] = []
    for path in candidates:
        reason = _damage(path)
        if reason is None:
            if damaged:
                _warn(f'resuming from the last one that is whole, {path}')
            return path
        damaged.append(f'{path}: {reason}')
        _warn(f'damaged checkpoint {damaged[-1]}')
    if damaged:
        raise UserError(
            'no checkpoint to resume from is whole:\n  '
            + '\n  '.join(damaged)
            + f'\nRemove them and {pointer}, or leave --resume out, to start anew'
        )
    return None


def _damage(path: Path) -> str | None:
    """What is wrong with a file of ``torch.save``; nothing of it is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # compares every checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        return f'{path.stat().st_size:,} bytes, truncated or overwritten ({error})'
    return broken and f'the checksum of {broken} in it is wrong'


def _warn(text: str) -> None:
    print_log(text, logger='current', level=30)
