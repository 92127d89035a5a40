"""The linear classifier over the class token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.layers.architectures import INIT_STD
from illama_seg.pretrain.structures import DataSample


@MODELS.register_module()
class LinearClsHead(BaseModule):
    """Linear layer with label-smoothed cross entropy, for hard or soft labels.

    Args:
        num_classes: number of classes.
        in_channels: channels of the features.
        label_smoothing: share of the label spread over all classes, also of mixed
            labels: smoothing is linear, so the order does not matter.

    Raises:
        UserError: for an argument out of its range.
    """

    def __init__(
        self, num_classes: int, in_channels: int, label_smoothing: float = 0.0
    ) -> None:
        super().__init__()
        if num_classes < 2 or not 0 <= label_smoothing < 1:
            raise UserError(
                f'LinearClsHead num_classes={num_classes}, label_smoothing='
                f'{label_smoothing}: expected at least 2, and a number in [0, 1)'
            )
        self.num_classes, self.in_channels = num_classes, in_channels
        self.label_smoothing = label_smoothing
        self.fc = nn.Linear(in_channels, num_classes)

    def init_weights(self) -> None:
        """Draw truncated normal weights; set the bias to zero."""
        nn.init.trunc_normal_(self.fc.weight, std=INIT_STD)
        nn.init.zeros_(self.fc.bias)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Return the logits (B, num_classes) of the last features, (B, in_channels)."""
        return self.fc(feats[-1])

    def loss(
        self, feats: tuple[Tensor, ...], data_samples: Sequence[DataSample]
    ) -> dict[str, Tensor]:
        """Return the mean cross entropy, with the soft labels of mixed samples."""
        logits = self(feats)
        kind = 'gt_score' if 'gt_score' in data_samples[0] else 'gt_label'
        target = torch.stack([sample.get(kind) for sample in data_samples])
        target = target.squeeze(1) if kind == 'gt_label' else target
        smoothing = self.label_smoothing
        # Float32 also under autocast to half precision, as timm's loss.
        loss = F.cross_entropy(logits.float(), target, label_smoothing=smoothing)
        return dict(loss=loss)

    def predict(
        self,
        feats: tuple[Tensor, ...],
        data_samples: Sequence[DataSample] | None = None,
    ) -> list[DataSample]:
        """Set probabilities and predicted class of the samples, or of new ones."""
        scores = self(feats).float().softmax(dim=-1)
        samples = data_samples or [DataSample() for _ in scores]
        labels = scores.argmax(dim=-1)
        for sample, score, label in zip(samples, scores, labels, strict=True):
            sample.set_pred_score(score).set_pred_label(label)
        return list(samples)
