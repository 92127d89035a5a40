"""Top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from illama_seg.errors import UserError


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percentage of images whose class is among the k highest scores.

    Returns ``accuracy/top1``, ``accuracy/top5``, ..., as mmpretrain names them.

    Args:
        topk: one or more k.
        collect_device: device that gathers the processes' results, 'cpu' or 'gpu'.
        prefix: prefix of the names; 'accuracy' by default.

    Raises:
        UserError: if a k is below 1 or above the number of classes.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        topk: int | Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device, prefix)
        self.topk = (topk,) if isinstance(topk, int) else tuple(topk)
        if not self.topk or min(self.topk) < 1:
            raise UserError(f'Accuracy topk={topk}: expected numbers of 1 or more')

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the rank of each image's class among its scores."""
        scores = torch.stack([sample['pred_score'] for sample in data_samples])
        labels = torch.stack([sample['gt_label'] for sample in data_samples])
        num_classes = scores.shape[1]
        if max(self.topk) > num_classes:
            raise UserError(
                f'Accuracy topk={self.topk}, but there are {num_classes} classes: '
                'set val_evaluator.topk and test_evaluator.topk'
            )
        if not scores.isfinite().all():
            raise UserError('Accuracy: scores are not finite; the training diverged')
        # Tied scores, as of a collapsed model, have one rank each: they are no hits.
        hits = scores.topk(max(self.topk)).indices == labels.to(scores.device)
        ranks = torch.where(hits.any(1), hits.int().argmax(1), num_classes)
        self.results += ranks.tolist()

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        """Return the percentage of ranks below each k."""
        return {
            f'top{k}': 100 * sum(rank < k for rank in results) / len(results)
            for k in self.topk
        }
