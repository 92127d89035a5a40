"""Test-time augmentation that averages probabilities, for one channel too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel


@MODELS.register_module()
class AveragingTTAModel(SegTTAModel):
    """Average the probabilities of all views, then take the best class.

    Equals mmseg's ``SegTTAModel`` for several channels. For the one channel of a
    foreground, mmseg's predictions are probabilities already, and ``SegTTAModel``
    applies the sigmoid again: no value is below 0.5, and every pixel becomes
    foreground.
    """

    def merge_preds(self, data_samples_list: Sequence[Sequence[Any]]) -> list[Any]:
        """Merge the views of each image.

        Args:
            data_samples_list: views of each image, with ``seg_logits``: logits of
                several channels, or the probability of one, (1, H, W).

        Returns:
            A sample of each image, with ``pred_sem_seg`` and ``gt_sem_seg``.
        """
        if self.module.out_channels > 1:
            return super().merge_preds(data_samples_list)
        merged = []
        for views in data_samples_list:
            shares = torch.stack([view.seg_logits.data for view in views]).mean(0)
            labels = (shares > self.module.decode_head.threshold).to(shares)
            sample = views[0]  # with its annotation and path
            sample.set_data({'pred_sem_seg': PixelData(data=labels)})
            merged.append(sample)
        return merged
