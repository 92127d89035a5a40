"""Checkpoint and exit on SIGTERM or SIGUSR1 (preemption)."""

from __future__ import annotations

import os
import signal
import threading
from bisect import bisect
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from illama_seg.engine.long_runs.checkpoint import SafeCheckpointHook
from illama_seg.engine.schedule import updates_every

EXIT_CODE = os.EX_TEMPFAIL if hasattr(os, 'EX_TEMPFAIL') else 75
NAMES = 'SIGTERM', 'SIGUSR1'
DUE = 'validation_due'  # in mmengine's message hub


class Interrupted(SystemExit):
    """The training was asked to end and has saved itself: exit with 75, try again."""


@HOOKS.register_module()
class InterruptionHook(Hook):
    """Save after the current update and exit with code 75, at SIGTERM or SIGUSR1.

    Slurm and torchrun send these signals before they kill. A validation is broken off.
    All processes of a training exit after the same iteration, whichever got the signal.
    A second signal of the same kind ends the process at once. Only the main thread can
    handle signals: elsewhere the hook does nothing, and neither does it with several
    processes where torch has no gloo.

    A checkpoint saved just before a validation records that the validation is pending;
    the resumed run performs it first. At the end of a training this is recorded only
    after a signal.

    Raises:
        Interrupted: a ``SystemExit``, once the checkpoint is written.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        self._group: Any = None
        self._asked: tuple[Any, torch.Tensor] | None = None

    def before_train(self, runner: Runner) -> None:
        """Handle signals; then perform a validation that is pending."""
        # The signal is sent to the loaders' workers too.
        for loop in (runner.train_loop, runner.val_loop):
            loader = getattr(loop, 'dataloader', None)
            if isinstance(loader, DataLoader):
                loader.worker_init_fn = ShieldedWorker(loader.worker_init_fn)
        self._listen()
        if runner.message_hub.pop_info(DUE) and runner.val_loop is not None:
            runner.val_loop.run()

    def _listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if dist.is_initialized() and dist.get_world_size() > 1:
            if not dist.is_gloo_available():
                return
            # On the CPU: a GPU's queue is not waited for.
            self._group = dist.new_group(backend='gloo')
        for name in NAMES:
            if (number := getattr(signal, name, None)) is not None:
                self._handlers[number] = signal.signal(number, self._note)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save and leave, if it was asked for and the parameters were just updated."""
        done = runner.iter + 1
        if done % updates_every(runner.optim_wrapper) == 0 and self._is_asked():
            loop = runner.train_loop
            if isinstance(loop, IterBasedTrainLoop) and _is_due(runner, done):
                runner.message_hub.update_info(DUE, True)
            self._leave(runner, done)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note a validation that comes next, for a run that is killed in it."""
        loop, meta = runner.train_loop, checkpoint['meta']
        if isinstance(loop, EpochBasedTrainLoop):
            done, now, last = meta['epoch'], runner.epoch, runner.max_epochs
        else:
            done, now, last = meta['iter'], runner.iter, runner.max_iters
        # A checkpoint that a validation writes itself has done == now: nothing is due.
        # A finished training that is resumed does not validate again.
        if done == now + 1 and done < last and _is_due(runner, done):
            hub = checkpoint['message_hub']
            hub['runtime_info'][DUE] = hub['resumed_keys'][DUE] = True

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Do not wait for the end of a validation."""
        sampler = getattr(runner.val_dataloader, 'sampler', None)
        if self._group is not None and not getattr(sampler, 'round_up', False):
            return  # the processes may have different numbers of batches
        if self._is_asked():
            runner.message_hub.update_info(DUE, True)
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # it validates the averaged weights
                    hook._swap_ema_parameters()
            self._leave(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Leave the signals as they were."""
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            self._restore()
            signal.raise_signal(number)
        self._signal = number

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _is_asked(self) -> bool:
        """Return True if any process got a signal (several: by the previous call)."""
        if self._group is None:
            return self._signal is not None
        before = self._asked
        flag = torch.tensor(int(self._signal is not None))
        work = dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True)
        self._asked = work, flag
        if before is None:
            return False
        before[0].wait()
        return bool(before[1])

    def _leave(self, runner: Runner, done: int) -> None:
        name = signal.Signals(self._signal).name if self._signal else 'another process'
        due, saved = runner.message_hub.get_info(DUE), False
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                saved = hook.saved_at == done and not due
                meta = dict(epoch=runner.epoch, iter=done)
                saved = saved or hook.save_now(runner, meta)
        if self._group is not None:
            dist.barrier(self._group)  # torchrun kills the others of one that has left
        self._restore()
        if saved:
            runner.logger.warning(
                f'{name}: saved after iteration {done}, now it ends, with exit code '
                f'{EXIT_CODE}. Start it again with resume=True'
            )
            raise Interrupted(EXIT_CODE)
        runner.logger.error(
            f'{name}: nothing could be saved after iteration {done}. resume=True '
            'continues from the last checkpoint'
        )
        raise Interrupted(1)


def _is_due(runner: Runner, done: int) -> bool:
    """Return True if mmengine's loop validates after ``done`` iterations or epochs."""
    loop: Any = runner.train_loop
    if runner.val_loop is None or not hasattr(loop, 'dynamic_milestones'):
        return False
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    last = loop.max_epochs if by_epoch else loop.max_iters
    step = bisect(loop.dynamic_milestones, done + 1)
    interval = loop.dynamic_intervals[step - 1]
    return done >= loop.val_begin and (done % interval == 0 or done == last)


class ShieldedWorker:
    """Start a loader's worker that outlives signals which are not its parent's.

    Slurm and torchrun signal every process of a job. A worker that ends stops the
    training before it has saved itself.
    """

    def __init__(self, start: Callable[[int], None] | None) -> None:
        self.start = start

    def __call__(self, worker_id: int) -> None:
        if hasattr(signal, 'sigwaitinfo'):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            # A handler is not told who sends; a thread that waits is.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            threading.Thread(target=_end_with_parent, daemon=True).start()
        if self.start is not None:
            self.start(worker_id)


def _end_with_parent() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
