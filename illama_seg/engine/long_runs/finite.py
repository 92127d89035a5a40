"""Stop a training at a loss that is not finite."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from illama_seg.engine.optim import steadier_settings, training_precision
from illama_seg.errors import UserError


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop at a loss that is not finite, before the optimiser's step.

    The batch's files go into ``non_finite_loss.json`` in the work dir. On a GPU the
    answer is copied while the backward pass runs and waited for before the step, so the
    queue of the device does not run dry. With float16 loss scaling such steps are
    skipped anyway, so only ``patience`` consecutive non-finite losses are an error;
    steps skipped for overflowing gradients are not counted.

    Args:
        patience: iterations in a row, with a loss scale.

    Raises:
        UserError: with iteration, loss and file.
    """

    priority = 'HIGH'  # before the EMA and the checkpoint

    def __init__(self, patience: int = 20) -> None:
        if patience < 1:
            raise UserError(f'FiniteLossHook patience={patience}: expected at least 1')
        self.patience = patience
        self._in_a_row = 0
        self._files: list[str] = []
        self._files_before: list[str] = []
        self._loss: Tensor | None = None
        self._copied: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look at what the optimiser wrapper is given."""
        wrapper: Any = runner.optim_wrapper
        self._runner = runner
        self._scales = getattr(wrapper, 'loss_scaler', None) is not None
        if not hasattr(wrapper, 'optimizer'):  # several, each with its own loss
            return
        backward = wrapper.backward

        def watched(loss: Tensor, **kwargs: Any) -> None:
            self._watch(loss.detach())
            backward(loss, **kwargs)

        wrapper.backward = watched
        if not self._scales:
            wrapper.optimizer.register_step_pre_hook(lambda *_: self._check())

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Note the names of the files."""
        self._files_before, self._files = self._files, names_of(data_batch)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Check iterations without a step, too."""
        self._check()

    def _watch(self, loss: Tensor) -> None:
        self._loss = loss
        if loss.is_cuda:
            self._loss = torch.empty_like(loss, device='cpu', pin_memory=True)
            self._loss.copy_(loss, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def _check(self) -> None:
        if self._loss is None:
            return
        if self._copied is not None:
            self._copied.synchronize()
        loss, self._loss = self._loss, None
        if torch.isfinite(loss).all():
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if not self._scales or self._in_a_row == self.patience:
            self._stop(loss.sum().item())

    def _stop(self, loss: float) -> None:
        runner = self._runner
        rank = f'_rank_{runner.rank}' if runner.rank else ''
        path = Path(runner.work_dir) / f'non_finite_loss{rank}.json'
        iteration = runner.iter + 1
        record = dict(
            time=f'{datetime.now():%Y-%m-%d %H:%M:%S}',
            iteration=iteration,
            epoch=runner.epoch + 1,
            loss=str(loss),
            iterations_in_a_row=self._in_a_row,
            lr={k: max(v) for k, v in runner.optim_wrapper.get_lr().items()},
            precision=training_precision(runner.optim_wrapper).name,
            seed=runner.seed,
            files=self._files,
            files_of_the_batch_before=self._files_before,
        )
        text = json.dumps(record, indent=1)
        try:
            path.write_text(text)
        except OSError as error:
            runner.logger.error(f'{path} could not be written ({error}): {text}')
        raise UserError(
            f'the loss is {loss} in iteration {iteration}: the weights were not '
            f'updated, the checkpoints are unchanged, and the files of the batch are '
            f'listed in {path}. Check them, then resume from the last checkpoint '
            f'(resume=True) with {steadier_settings(runner.optim_wrapper)}'
        )


def names_of(batch: Any) -> list[str]:
    """Files of a batch of mmengine's data elements, or their places in the data."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    found = ((s.get('img_path'), s.get('sample_idx')) for s in samples or ())
    return [str(path or f'sample {index}') for path, index in found]
