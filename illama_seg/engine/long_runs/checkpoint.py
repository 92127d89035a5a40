"""Atomic checkpoints.

Over 300 lines: every way of mmengine's hook to write or remove a file is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from illama_seg.engine.long_runs.durable import _tensors, check_finite, make_durable
from illama_seg.engine.optim import steadier_settings
from illama_seg.engine.schedule import updates_every

PART = '.part'
POINTER = 'last_checkpoint'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's hook, its arguments and file names; a kill or full disk costs nothing.

    - A file is written under a name ending in ``.part``, flushed to the disk and
      renamed, ``last_checkpoint`` too; older files are removed after that.
    - A checkpoint that cannot be written is an error in the log, with what was needed
      and free, and is tried again: iteration-based after a tenth of the interval,
      epoch-based after the next epoch. The training goes on. Only where its last
      checkpoint cannot be written it ends with an error.
    - Weights that are not finite are never saved: the training ends instead.
    - Where gradients accumulate, iteration-based checkpoints wait for the update.
    - Nothing is removed but files of its own names, directly in its own folder: the
      names of older ones come out of the checkpoint that is resumed, which may be
      another run's, or a stranger's.

    With a storage backend other than the local disk, a file is written as the backend
    does it.

    Raises:
        OSError: the last checkpoint of a training cannot be written.
        UserError: weights are not finite.
    """

    _default_greater_keys: ClassVar[list[str]] = [
        *CheckpointHook._default_greater_keys, 'mFscore', 'mPrecision', 'mRecall'
    ]  # fmt: skip
    best_ckpt_path: str | None
    saved_at: int | None = None  # iterations done, in the last one to go on from
    _failed_at: int | None = None
    _needed = 0

    def before_train(self, runner: Runner) -> None:
        """Find the folder; remove what a killed run left half written, or too much."""
        ids = runner.message_hub.pop_info('keep_ckpt_ids')
        super().before_train(runner)
        self._local = isinstance(self.file_backend, LocalBackend)
        resumed = runner._load_from if runner._resume else None
        is_own_run = resumed is None or self._is_here(str(resumed))
        self._forget_other_score(runner)
        self._keep_own(runner.message_hub, is_own_run)
        if not isinstance(ids, list) or not is_own_run:
            ids = []
        ids = [step for step in ids if type(step) is int]
        # Kept beside each other until the new one is whole.
        self.keep_ckpt_ids = deque(ids)
        if self.max_keep_ckpts > 0:
            self._remove_older(ids)
        if self._local and is_main_process():
            for path in Path(self.out_dir).glob(f'*{PART}'):
                runner.logger.info(f'{path}: half written, removed')
                _remove(path)

    def _keep_own(self, hub: MessageHub, is_own_run: bool) -> None:
        """Forget another run's files; find those of this one where it was moved."""
        for key in list(hub.runtime_info):
            if not key.startswith(('best_ckpt', 'last_ckpt', 'interrupted_ckpt')):
                continue
            path = hub.get_info(key)
            name = os.path.basename(path) if isinstance(path, str) else ''
            known = is_own_run and self._is_name(name)
            path = self.file_backend.join_path(self.out_dir, name) if known else None
            _set_infos(hub, {key: path})
        if self.save_best and len(self.key_indicators) == 1:
            self.best_ckpt_path = hub.get_info('best_ckpt')
        elif self.save_best:
            self.best_ckpt_path_dict = {
                key: hub.get_info(f'best_ckpt_{key}') for key in self.key_indicators
            }

    def _forget_other_score(self, runner: Runner) -> None:
        """Begin the best score anew where it was of another metric."""
        best = runner.message_hub.get_info('best_ckpt')
        if not self.save_best or len(self.key_indicators) > 1 or best is None:
            return
        (key,), name = self.key_indicators, os.path.basename(str(best))
        if key == 'auto' or name.startswith(f'best_{key}_'.replace('/', '_')):
            return
        _set_infos(runner.message_hub, dict(best_score=None, best_ckpt=None))
        runner.logger.warning(
            f'resumed with default_hooks.checkpoint.save_best={key}, was another: its '
            f'best score begins anew, and {name} is kept'
        )

    def _is_here(self, path: str) -> bool:
        """Return True if a file is directly in the folder of the checkpoints."""
        folder, own = os.path.dirname(path), str(self.out_dir)
        if self._local:
            return os.path.realpath(folder) == os.path.realpath(own)
        return folder == own.rstrip('/')

    def _is_name(self, name: str) -> bool:
        """Return True if this hook, or mmengine's, may have given a file this name."""
        parts = re.split(r'\{.*?\}', self.filename_tmpl.replace('/', '_'))
        numbered = r'\d+'.join(map(re.escape, parts))
        pattern = rf'(best_.+_)?({numbered}|(iter|epoch)_\d+\.pth)'
        return re.fullmatch(pattern, name) is not None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save where a checkpoint is due and the parameters were just updated."""
        if self.by_epoch:
            return
        done, every = runner.iter + 1, updates_every(runner.optim_wrapper)
        last = self.save_last and self.is_last_train_iter(runner)
        since = done - self.save_begin
        due = self.interval > 0 and since >= 0 and since % self.interval < every
        if self._failed_at is not None:
            due |= done - self._failed_at >= max(1, self.interval // 10)
        if last or (due and done % every == 0):
            runner.logger.info(f'Saving checkpoint at {done} iterations')
            self._save_checkpoint(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what is about to be written."""
        for key in ('state_dict', 'ema_state_dict'):
            check_finite(
                checkpoint.get(key, {}),
                checkpoint['meta']['iter'],
                steadier_settings(runner.optim_wrapper),
            )
        self._needed = sum(tensor.nbytes for tensor in _tensors(checkpoint))

    def save_now(self, runner: Runner, meta: dict) -> bool:
        """Save for a run that ends here, to go on from; it replaces the last such one.

        Args:
            runner: the runner, at a whole update.
            meta: 'epoch' and 'iter', as many as are done.

        Returns:
            Whether it could be written; True on other than the main process.
        """
        if not self.by_epoch:
            return self._save_checkpoint_with_step(runner, meta['iter'], meta)
        name = f'iter_{meta["iter"]}.pth'
        before = runner.message_hub.get_info('interrupted_ckpt')
        path = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('interrupted_ckpt', path)
        if not self._write(runner, name, meta):
            _set_infos(runner.message_hub, dict(interrupted_ckpt=before))
            return False
        self._point_to(runner, path)
        if before and before != path:
            self._remove_checkpoint(before)
        return True

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> bool:
        hub, name = runner.message_hub, self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, name)
        before = {
            key: hub.get_info(key)
            for key in ('keep_ckpt_ids', 'last_ckpt', 'interrupted_ckpt')
        }
        if self.max_keep_ckpts > 0:
            ids = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            # All of them: what is not yet removed is removed by the run that resumes.
            hub.update_info('keep_ckpt_ids', ids)
        hub.update_info('last_ckpt', path)
        hub.pop_info('interrupted_ckpt')
        if not self._write(runner, name, meta):
            _set_infos(hub, before)
            return False
        self.last_ckpt = path
        self._point_to(runner, path)
        if before['interrupted_ckpt'] not in (None, path):
            self._remove_checkpoint(before['interrupted_ckpt'])
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(ids[-self.max_keep_ckpts :])
            hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            self._remove_older(ids)
        return True

    def _remove_older(self, ids: Sequence[int]) -> None:
        for old in ids[: -self.max_keep_ckpts]:
            name = self.filename_tmpl.format(old)
            self._remove_checkpoint(self.file_backend.join_path(self.out_dir, name))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        step = runner.epoch if self.by_epoch else runner.iter
        improved = [
            self._save_if_best(runner, key, metrics, step)
            for key in self.key_indicators
        ]
        # Once more: the first one was saved before there was this best one.
        if any(improved) and self.last_ckpt is not None:
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_if_best(self, runner: Runner, key: str, metrics: dict, step: int) -> bool:
        hub, single = runner.message_hub, len(self.key_indicators) == 1
        suffix = '' if single else f'_{key}'
        rule = self.rules[self.key_indicators.index(key)]
        best = hub.get_info(f'best_score{suffix}', self.init_value_map[rule])
        score = metrics[key]
        if score is None or not self.is_better_than[key](score, best):
            return False
        before = self.best_ckpt_path if single else self.best_ckpt_path_dict.get(key)
        name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
        path = self.file_backend.join_path(self.out_dir, name)
        infos = {f'best_score{suffix}': score, f'best_ckpt{suffix}': path}
        earlier = {info: hub.get_info(info) for info in infos}
        _set_infos(hub, infos)
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        options = dict(save_optimizer=False, save_param_scheduler=False, by_epoch=False)
        if not self._write(runner, name, meta, **options):
            _set_infos(hub, earlier)
            return False
        if single:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path
        if before and before != path:
            self._remove_checkpoint(before)
        runner.logger.info(
            f'The best checkpoint with {score:0.4f} {key} at {step} '
            f'{"epoch" if self.by_epoch else "iter"} is saved to {name}.'
        )
        return True

    def _write(self, runner: Runner, name: str, meta: dict, **options: Any) -> bool:
        """Save atomically; return False if the disk refused."""
        folder = Path(self.out_dir) if self._local else None
        options = (
            dict(
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                by_epoch=self.by_epoch,
            )
            | options
        )
        try:
            runner.save_checkpoint(
                self.out_dir,
                name + PART if folder else name,
                self.file_client_args,
                meta=meta,
                backend_args=self.backend_args,
                **options,
                **self.args,
            )
            if folder and is_main_process():
                make_durable(folder / (name + PART), folder / name)
        except OSError as error:
            self._failed_at = runner.iter + 1
            if folder:
                _remove(folder / (name + PART))
            message = self._say_failed(name, error)
            if meta['iter'] >= runner.max_iters:
                raise OSError(
                    f'{message}. It was the last one of the training'
                ) from error
            runner.logger.error(f'{message}. The training goes on, and tries again')
            return False
        self._failed_at = None
        if options['save_optimizer']:
            self.saved_at = meta['iter']
        return True

    def _say_failed(self, name: str, error: OSError) -> str:
        free = 'unknown'
        with suppress(OSError):
            free = f'{shutil.disk_usage(self.out_dir).free:,} bytes'
        return (
            f'checkpoint {name} could not be written to {self.out_dir}: '
            f'{error.strerror or error}; it needs more than {self._needed:,} bytes, '
            f'free: {free}. Make room there; the last whole one is '
            f'{self.last_ckpt or "none"}'
        )

    def _point_to(self, runner: Runner, path: str) -> None:
        if not is_main_process():
            return
        pointer = Path(runner.work_dir) / POINTER
        part = pointer.with_name(pointer.name + PART)
        try:
            part.write_text(path)
            make_durable(part, pointer)
        except OSError as error:
            _remove(part)
            # The checkpoint is whole: it is found without the pointer.
            with suppress(OSError):
                pointer.unlink()
            runner.logger.error(f'{pointer} could not be written: {error}')

    def _remove_checkpoint(self, path: str) -> None:
        own = self._is_here(path) and self._is_name(os.path.basename(path))
        if own and is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)


def _set_infos(hub: MessageHub, infos: dict[str, Any]) -> None:
    for key, value in infos.items():
        if value is None:
            hub.pop_info(key)
        else:
            hub.update_info(key, value)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
