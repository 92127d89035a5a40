"""Schedules of the soft mask rate over training (arXiv 2404.06773, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from illama_seg.engine.schedule import updates_every
from illama_seg.errors import UserError

MODES = ('constant', 'linear')


@HOOKS.register_module()
class SoftMaskHook(Hook):
    """Decrease the soft mask rate during training, from bidirectional to causal.

    The rate is a function of the iteration alone, so a resumed run has the right one.
    It is 1 at first; 'constant' keeps it until the cutoff, 'linear' decreases it to 0
    over the parameter updates before the cutoff, both ends included, as
    ``numpy.linspace(1, 0, updates)``. From the cutoff on it is 0. Validation during
    training uses the current rate; after training and in tests it is 0. Checkpoints do
    not hold it. It is logged as the scalar ``soft_mask_rate``. A best checkpoint saved
    before the cutoff may score much lower in a test, where the rate is 0.

    Args:
        mode: 'constant' or 'linear'.
        cutoff: when the rate has come to 0, in epochs or iterations.
        by_epoch: the cutoff counts epochs, not iterations.

    Raises:
        UserError: for an unknown mode, a negative cutoff, one beyond the end of the
            training (when that starts), or a model that has no soft mask.
    """

    def __init__(self, mode: str, cutoff: int, by_epoch: bool = True) -> None:
        if mode not in MODES:
            raise UserError(f'SoftMaskHook mode={mode!r}: expected one of {MODES}')
        if cutoff < 0:
            raise UserError(f'SoftMaskHook cutoff={cutoff}: expected at least 0')
        self.mode, self.cutoff, self.by_epoch = mode, cutoff, by_epoch
        self._every = 1
        self._num_updates = 0

    def rate_at(self, iteration: int) -> float:
        """Rate in [0, 1] of an iteration, counted from 0, once the training started."""
        update = iteration // self._every
        if update >= self._num_updates:
            return 0.0
        if self.mode == 'constant' or self._num_updates == 1:
            return 1.0
        return 1 - update / (self._num_updates - 1)

    def before_train(self, runner: Runner) -> None:
        """Learn the length of an epoch and set the rate of the first iteration."""
        epoch_length = len(runner.train_dataloader)
        cutoff_iters = self.cutoff * (epoch_length if self.by_epoch else 1)
        if cutoff_iters > runner.max_iters:
            unit = 'epochs' if self.by_epoch else 'iterations'
            longest = runner.max_iters // (epoch_length if self.by_epoch else 1)
            raise UserError(
                f'SoftMaskHook cutoff={self.cutoff} {unit} is longer than the training '
                f'({longest} {unit}): lower its cutoff in custom_hooks, or train longer'
            )
        self._every = updates_every(runner.optim_wrapper)
        self._num_updates = cutoff_iters // self._every
        self._set(runner, self.rate_at(runner.iter))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set and log the rate."""
        rate = self.rate_at(runner.iter)
        self._set(runner, rate)
        runner.message_hub.update_scalar('train/soft_mask_rate', rate)

    def after_train(self, runner: Runner) -> None:
        """Leave a causal model behind."""
        self._set(runner, 0.0)

    def before_test(self, runner: Runner) -> None:
        """Test the causal model."""
        self._set(runner, 0.0)

    def _set(self, runner: Runner, rate: float) -> None:
        for module in _soft_masked(runner):
            module.set_soft_mask_rate(rate)


def _soft_masked(runner: Runner) -> Iterator[Any]:
    """Modules with a soft mask: in the model, however wrapped, and in its averages."""
    averages = [getattr(hook, 'ema_model', None) for hook in runner.hooks]
    for model in (runner.model, *averages):
        found = [
            module
            for module in (model.modules() if isinstance(model, nn.Module) else ())
            if hasattr(module, 'set_soft_mask_rate')
        ]
        if model is runner.model and not found:
            raise UserError(
                'SoftMaskHook: no module of the model has set_soft_mask_rate; use '
                "a backbone of type 'ILLaMA', or take the hook out of custom_hooks"
            )
        yield from found
