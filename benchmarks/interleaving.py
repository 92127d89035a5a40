"""Timing blocks of a training and of the bare loop in turn, in one process."""

import copy
import logging
import multiprocessing
import os
import statistics
import time
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import DTYPES, timed
from mmengine.hooks import Hook
from mmengine.runner import Runner

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
NUM_WORKERS, PREFETCHED = 2, 2  # batches a worker loads ahead: torch's default
SKIPPED = NUM_WORKERS * PREFETCHED
PARTS = ('rest', 'optimiser', 'preprocess', 'data', 'hooks')


class BareLoop:
    """A training iteration and nothing else, of a copy of the model."""

    def __init__(self, model, size: int, batch: int, dtype: str) -> None:
        self.model = copy.deepcopy(model).train()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), weight_decay=0.05)
        num_classes = self.model.head.num_classes
        self.images = torch.randn(batch, 3, size, size, device=DEVICE)
        self.labels = torch.randint(num_classes, (batch,), device=DEVICE)
        self.precision = (
            nullcontext()
            if dtype == 'float32'
            else torch.autocast(DEVICE, DTYPES[dtype])
        )

    def step(self) -> None:
        with self.precision:
            logits = self.model.head(self.model.backbone(self.images))
        loss = F.cross_entropy(logits.float(), self.labels, label_smoothing=0.1)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def infer(self) -> None:
        """In float32, as mmengine evaluates during training whatever the dtype."""
        with torch.no_grad():
            self.model.head(self.model.backbone(self.images))

    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            self.step()


class SideBySide(Hook):
    """Time blocks of the training it is registered in, and of the bare loop after each.

    Attributes:
        seconds: of an iteration in each block, by 'step' and 'bare'.
        parts: likewise, the seconds of each of PARTS.
        processor: seconds of this process and of the workers in all blocks.
        pauses: seconds of a log line, a checkpoint, the evaluation and bare inference
            of as many batches.
    """

    priority = 'LOWEST'

    def __init__(
        self, size: int, batch: int, dtype: str, iterations: int, repeats: int
    ) -> None:
        self.case = size, batch, dtype
        self.iterations, self.repeats = iterations, repeats
        self.seconds: dict[str, list[float]] = {'step': [], 'bare': []}
        self.parts: dict[str, list[dict]] = {'step': [], 'bare': []}
        self.processor: Counter = Counter()
        self.pauses: dict[str, float] = {}
        self._spent: Counter = Counter()
        self._log_lines: list[float] = []

    def before_train(self, runner: Runner) -> None:
        self.bare = BareLoop(runner.model, *self.case)
        self.bare.run(2)  # warm
        watch(self.bare.optimiser, 'step', self._spent, 'optimiser')
        watch(runner.optim_wrapper.optimizer, 'step', self._spent, 'optimiser')
        watch(runner.model.data_preprocessor, 'forward', self._spent, 'preprocess')
        watch(runner.val_loop, 'run', self._spent, 'evaluation')
        for hook in runner.hooks:
            name = type(hook).__name__
            if hook is not self:
                watch(hook, 'before_train_iter', self._spent, name)
                watch(hook, 'after_train_iter', self._spent, name)
            if name == 'SafeCheckpointHook':
                watch(hook, 'after_train_epoch', self._spent, 'checkpoint')
                watch(hook, 'after_val_epoch', self._spent, 'best_checkpoint')
        self._hooks = {type(hook).__name__ for hook in runner.hooks}
        for handler in (runner.logger, *runner.logger.handlers):
            handler.setLevel(logging.INFO)  # lines are written, as in a training

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._spent['data'] += runner.message_hub.get_scalar(
            'train/data_time'
        ).current()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        place = (batch_idx + 1) % (SKIPPED + self.iterations)
        if len(self.seconds['step']) == self.repeats:
            return
        if place == SKIPPED:
            synchronise()
            self._spent.clear()
            self._processor = processor_seconds()
            self._start = time.perf_counter()
        elif place == 0:
            synchronise()
            self._end_block('step', time.perf_counter() - self._start)
            self._log_lines.append(self._spent['SafeLoggerHook'])
            for name, seconds in processor_seconds().items():
                self.processor[name] += seconds - self._processor[name]
            self._time_bare()

    def _time_bare(self) -> None:
        wait_for_idle_workers()
        self._spent.clear()
        before = time.process_time()
        seconds = timed(partial(self.bare.run, self.iterations), DEVICE)
        self._end_block('bare', seconds)
        self.processor['bare'] += time.process_time() - before
        self._spent.clear()

    def _end_block(self, name: str, seconds: float) -> None:
        spent = {key: value / self.iterations for key, value in self._spent.items()}
        parts = {key: spent.get(key, 0.0) for key in PARTS}
        parts['hooks'] = sum(spent.get(key, 0.0) for key in self._hooks)
        parts['rest'] = seconds / self.iterations - sum(parts.values())
        self.seconds[name].append(seconds / self.iterations)
        self.parts[name].append(parts)

    def after_train(self, runner: Runner) -> None:
        loader = runner.val_loop.dataloader
        bare = timed(lambda: [self.bare.infer() for _ in loader.batch_sampler], DEVICE)
        self.pauses = {
            'log_line': statistics.median(self._log_lines),
            'checkpoint': self._spent['checkpoint'],
            'evaluation': self._spent['evaluation'] - self._spent['best_checkpoint'],
            'evaluation_images': len(loader.dataset),
            'bare_inference': bare,
        }


def watch(owner, method: str, spent: Counter, name: str) -> None:
    """Add the seconds of every call of the method to ``spent[name]``."""
    original = getattr(owner, method)

    def watched(*args, **kwargs):
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - start

    setattr(owner, method, watched)


def synchronise() -> None:
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def processor_seconds() -> dict[str, float]:
    """Processor time of this process and of its workers, so far."""
    return {'step': time.process_time(), 'workers': _workers_seconds()}


def _workers_seconds() -> float:
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f'/proc/{worker.pid}/stat').read_text().rpartition(')')[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return ticks / os.sysconf('SC_CLK_TCK')


def wait_for_idle_workers() -> None:
    before = -1.0
    while (now := _workers_seconds()) != before:
        before = now
        time.sleep(0.2)
