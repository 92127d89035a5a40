"""How long a training will take, from its first iterations."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from illama_seg.errors import UserError


@HOOKS.register_module()
class TimeEstimateHook(Hook):
    """Log, once, the time to an iteration and what is left of the training.

    The first fifth of the iterations is warm-up and does not count. The times are those
    of mmengine's ``IterTimerHook``: data loading is in them, validation is not. A run
    of no more iterations than ``after``, and one without that hook, logs nothing.

    Args:
        after: iterations of this process, resumed or not, to look at.

    Raises:
        ValueError: if ``after`` is less than 1.
    """

    priority = 'LOWEST'

    def __init__(self, after: int = 50) -> None:
        if after < 1:
            raise UserError(f'TimeEstimateHook after={after}: expected at least 1')
        self.after = after
        self._first = 0

    def before_train(self, runner: Runner) -> None:
        """Note where this process begins."""
        self._first = runner.iter

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | Sequence | None = None,
    ) -> None:
        """Log the estimate after the iteration that completes it."""
        done = runner.iter + 1
        times = runner.message_hub.log_scalars.get('train/time')
        if done - self._first != self.after or done >= runner.max_iters or not times:
            return
        counted = self.after - self.after // 5
        data = runner.message_hub.get_scalar('train/data_time').mean(counted)
        seconds = times.mean(counted)
        left = timedelta(seconds=round(seconds * (runner.max_iters - done)))
        runner.logger.info(
            f'{seconds:.3g} s to an iteration ({data:.2g} s of it waiting for data): '
            f'the other {runner.max_iters - done:,} take about {left}, until '
            f'{datetime.now() + left:%a %d %b %H:%M}, without validation'
        )
