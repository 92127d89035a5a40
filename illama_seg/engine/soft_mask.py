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
    """Move the soft mask during training, to what the backbone's config has.

    By default the rate a goes from 1 to 0, from bidirectional to causal, as in the
    paper. It goes the other way with ``rate=0`` and
    ``model.backbone.soft_mask_rate=1``: at once with ``cutoff=0``, in the last blocks
    alone with ``model.backbone.soft_mask_blocks``. With ``norm``, the power b of the
    sums moves along: from Eq. 2 to Eq. 1 by ``rate=0, norm=0`` and
    ``model.backbone.soft_mask_norm=1``.

    Both are functions of the iteration alone, so a resumed run has the right ones.
    'constant' keeps the first values until the cutoff, 'linear' moves to the last ones
    over the parameter updates before the cutoff, both ends included, as
    ``numpy.linspace``. From the cutoff on they are the config's. Validation during
    training uses the current values; after training and in tests they are the
    config's. Checkpoints hold the config's: a test with others warns. They are logged
    as the scalars ``soft_mask_rate`` and ``soft_mask_norm``. A best checkpoint saved
    before the cutoff may score much lower in a test.

    Args:
        mode: 'constant' or 'linear'.
        cutoff: when the values are those of the config, in epochs or iterations.
        by_epoch: the cutoff counts epochs, not iterations.
        rate: a at first.
        norm: b at first; None leaves it alone.

    Raises:
        UserError: for an unknown mode, a value out of range, a cutoff beyond the end of
            the training (when that starts), or a model that has no soft mask.
    """

    def __init__(
        self,
        mode: str,
        cutoff: int,
        by_epoch: bool = True,
        *,
        rate: float = 1.0,
        norm: float | None = None,
    ) -> None:
        if mode not in MODES:
            raise UserError(f'SoftMaskHook mode={mode!r}: expected one of {MODES}')
        if cutoff < 0:
            raise UserError(f'SoftMaskHook cutoff={cutoff}: expected at least 0')
        for name, value in dict(rate=rate, norm=norm).items():
            if value is not None and not 0 <= value <= 1:
                raise UserError(
                    f'SoftMaskHook {name}={value}: expected a number in [0, 1]'
                )
        self.mode, self.cutoff, self.by_epoch = mode, cutoff, by_epoch
        self.rate, self.norm = rate, norm
        self._every = 1
        self._num_updates = 0
        # Values of the config, once the training has started.
        self._last: tuple[float, float] | None = None

    def share_at(self, iteration: int) -> float:
        """Return the share of the way to the config's values, in [0, 1].

        Args:
            iteration: counted from 0, once the training started.
        """
        update = iteration // self._every
        if update >= self._num_updates:
            return 1.0
        if self.mode == 'constant' or self._num_updates == 1:
            return 0.0
        return update / (self._num_updates - 1)

    def values_at(self, iteration: int) -> tuple[float, float]:
        """Return rate and norm of an iteration, once the training started."""
        last = self._last or (0.0, 0.0)
        first = self.rate, last[1] if self.norm is None else self.norm
        share = self.share_at(iteration)
        rate, norm = (
            (1 - share) * f + share * e for f, e in zip(first, last, strict=True)
        )
        return rate, norm

    def before_train(self, runner: Runner) -> None:
        """Learn the length of an epoch and set the values of the first iteration."""
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
        self._learn(runner)
        self._set(runner, self.values_at(runner.iter))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set and log the values."""
        values = self.values_at(runner.iter)
        self._set(runner, values)
        runner.message_hub.update_scalar('train/soft_mask_rate', values[0])
        if self.norm is not None:
            runner.message_hub.update_scalar('train/soft_mask_norm', values[1])

    def after_train(self, runner: Runner) -> None:
        """Leave the config's values behind."""
        self._set(runner, self._learn(runner))

    def before_test(self, runner: Runner) -> None:
        """Test with the config's values."""
        self._set(runner, self._learn(runner))

    def _learn(self, runner: Runner) -> tuple[float, float]:
        """Return the config's values, noted before the first change."""
        if self._last is None:
            module = next(_soft_masked(runner))
            self._last = module.soft_mask_rate, module.soft_mask_norm
        return self._last

    def _set(self, runner: Runner, values: tuple[float, float]) -> None:
        for module in _soft_masked(runner):
            module.set_soft_mask_rate(values[0])
            if self.norm is not None:
                module.set_soft_mask_norm(values[1])


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
