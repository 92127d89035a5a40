"""Count the images that were skipped because they cannot be read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from illama_seg.errors import UserError


@HOOKS.register_module()
class CorruptImagesHook(Hook):
    """Skip training images that cannot be read; stop when there are too many.

    The resumable loops put another sample in the place of a corrupt one. Each file is
    logged when it is first met, all of them when the training ends. The counts are in
    the checkpoints. Every process counts its own.

    Args:
        limit: share of the training images that may be corrupt, from 0 to 1. At 0 the
            first one stops the training.

    Raises:
        UserError: more are corrupt, or the limit is out of its range.
    """

    def __init__(self, limit: float = 0.0) -> None:
        if not 0 <= limit <= 1:
            raise UserError(
                'expected a share of the images, from 0 (the first one stops the '
                'training) to 1, such as 0.01',
                limit=limit,
            )
        self.limit = limit
        self.counts: Counter[str] = Counter()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Count and log."""
        for sample in data_batch['data_samples'] if self.limit else ():
            for error in sample.get('skipped', ()):
                self.counts[error] += 1
                if self.counts[error] == 1:
                    self._meet(runner, error)

    def after_train(self, runner: Runner) -> None:
        """Log the total."""
        if self.counts:
            runner.logger.warning(
                f'skipped {self.counts.total()} times an image that cannot be read, '
                f'{len(self.counts)} images in all'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the counts."""
        checkpoint['skipped_images'] = dict(self.counts)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Count on."""
        if runner._resume:
            self.counts = Counter(checkpoint.get('skipped_images', {}))

    def _meet(self, runner: Runner, error: str) -> None:
        images = len(runner.train_dataloader.dataset)
        runner.logger.warning(
            f'skipped, another image takes its place ({len(self.counts)} so far of '
            f'{images:,}): {error}'
        )
        if len(self.counts) > self.limit * images:
            raise UserError(
                f'{len(self.counts)} of {images:,} training images cannot be read, '
                f'more than CorruptImagesHook limit={self.limit:g} allows; the last '
                f'one: {error}\nillama_seg.reports.check_dataset lists all'
            )
