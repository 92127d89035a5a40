"""Learning rate by parameter updates, and epochs of whole updates.

With gradient accumulation mmengine counts iterations, several to an update of the
parameters; the recipes of arXiv 2404.06773 count updates.
"""

from __future__ import annotations

import math
from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.optim import _ParamScheduler
from mmengine.registry import DATA_SAMPLERS, PARAM_SCHEDULERS

from illama_seg.errors import UserError

INF = int(1e9)  # mmengine's


def updates_every(optim_wrapper: Any) -> int:
    """Iterations to an update of the parameters."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Linear warmup from 0, then a cosine, for each update of the parameters.

    ``linspace(0, lr, warmup)``, both ends included; then, for i in 0..M-1 of the
    remaining M updates, ``eta_min + (lr - eta_min) (1 + cos(pi i / M)) / 2``.
    mmengine's ``LinearLR`` cannot start from 0 (it multiplies the last value), and its
    schedulers step within an update where gradients are accumulated.

    Args:
        optimizer: optimiser wrapper; mmengine's runner passes it.
        warmup: epochs with ``by_epoch``, else iterations.
        eta_min: last learning rate, of every parameter group.
        end: length of the training; mmengine's runner passes it.
        last_step: the last update done; -1 for none.
        by_epoch: step once an epoch. With ``convert_to_iter_based=True`` in the config
            the lengths are epochs and it steps at every update.
        verbose: log every value.

    Raises:
        UserError: if the warmup is negative or leaves nothing of the training.
    """

    def __init__(
        self,
        optimizer: Any,
        warmup: int = 0,
        eta_min: float = 0.0,
        end: int = INF,
        *,
        last_step: int = -1,
        by_epoch: bool = True,
        verbose: bool = False,
    ) -> None:
        if not 0 <= warmup < end:
            raise UserError(
                f'WarmupCosineLR warmup={warmup}: expected 0 or more, and less than '
                f'the training, {end} {"epochs" if by_epoch else "iterations"}'
            )
        self.eta_min = eta_min
        self._every = 1 if by_epoch else updates_every(optimizer)
        self._calls = -1
        self._warmup = warmup // self._every
        super().__init__(
            optimizer,
            'lr',
            end=math.ceil(end / self._every),
            last_step=last_step,
            by_epoch=by_epoch,
            verbose=verbose,
        )

    @classmethod
    def build_iter_from_epoch(
        cls, *args, warmup=0, end=INF, by_epoch=True, epoch_length=None, **kwargs
    ) -> WarmupCosineLR:
        """Build it for iterations from lengths in epochs; the registry calls this."""
        warmup, end = warmup * epoch_length, end * epoch_length
        return cls(*args, warmup=warmup, end=end, by_epoch=False, **kwargs)

    def step(self) -> None:
        """Count an iteration; at the last one of an update, set the next value."""
        self._calls += 1
        if self._calls % self._every == 0:
            super().step()

    def _get_value(self) -> list[float]:
        return [self._value(float(lr)) for lr in self.base_values]

    def _value(self, lr: float) -> float:
        if self.last_step < self._warmup:
            return lr * self.last_step / max(self._warmup - 1, 1)
        progress = (self.last_step - self._warmup) / (self.end - self._warmup)
        return (
            self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * progress)) / 2
        )

    def load_state_dict(self, state_dict: dict) -> None:
        """Take the place in the schedule, not its lengths, which the config gives.

        The same place where a resumed run accumulates over another number of
        iterations, having another number of GPUs.
        """
        calls, every = state_dict['_calls'], state_dict['_every']
        self._calls = calls * self._every // every
        for key in ('last_step', '_global_step', '_last_value'):
            setattr(self, key, state_dict[key])


@DATA_SAMPLERS.register_module()
class WholeUpdatesSampler(DefaultSampler):
    """Epochs of floor(images / effective batch) whole updates, others left out.

    With shuffling each epoch leaves out other images.

    Args:
        dataset: sized data set.
        effective_batch: images to an update of the parameters, over all processes.
        shuffle: another order each epoch.
        seed: of the order, the same in all processes.

    Raises:
        UserError: if the data set is smaller than the effective batch.
    """

    def __init__(
        self,
        dataset: Any,
        effective_batch: int,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(dataset, shuffle, seed)
        num_updates = len(dataset) // effective_batch
        if not num_updates:
            raise UserError(
                f'expected at most the {len(dataset)} images of the training set',
                effective_batch=effective_batch,
            )
        self.total_size = num_updates * effective_batch
        self.num_samples = self.total_size // self.world_size
