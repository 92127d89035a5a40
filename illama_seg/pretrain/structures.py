"""Annotation and prediction of one image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor


class DataSample(BaseDataElement):
    """Label and prediction of an image; names and fields are mmpretrain's.

    Attributes:
        gt_label: (1,) int64, class number.
        gt_score: (num_classes,), soft label of a mixed image.
        pred_label: (1,) int64, class of the highest score.
        pred_score: (num_classes,), probabilities.
    """

    gt_label: Tensor
    gt_score: Tensor
    pred_label: Tensor
    pred_score: Tensor

    def set_gt_label(self, value: int | Tensor) -> DataSample:
        """Set the class number."""
        self.set_field(_label(value), 'gt_label', dtype=Tensor)
        return self

    def set_gt_score(self, value: Tensor | Sequence[float]) -> DataSample:
        """Set a soft label, (num_classes,)."""
        self.set_field(torch.as_tensor(value), 'gt_score', dtype=Tensor)
        return self

    def set_pred_label(self, value: int | Tensor) -> DataSample:
        """Set the class predicted."""
        self.set_field(_label(value), 'pred_label', dtype=Tensor)
        return self

    def set_pred_score(self, value: Tensor | Sequence[float]) -> DataSample:
        """Set the probabilities, (num_classes,)."""
        self.set_field(torch.as_tensor(value), 'pred_score', dtype=Tensor)
        return self

    def __getstate__(self) -> dict:
        """Pickle the annotation as a number.

        A data loader's workers would share a tensor by a file for each image.
        """
        state = dict(self.__dict__)
        label = state.get('gt_label')
        if label is not None and label.device.type == 'cpu':
            state['gt_label'] = label.item()
        return state

    def __setstate__(self, state: dict) -> None:
        if isinstance(state.get('gt_label'), int):
            state = state | dict(gt_label=_label(state['gt_label']))
        self.__dict__.update(state)


def _label(value: int | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.int64).reshape(1)
