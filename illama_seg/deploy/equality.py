"""Compare an exported file with the model that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from illama_seg.deploy.graph import Exportable, Size, to_onnx, to_openvino
from illama_seg.deploy.runtime import ExportedModel, open_session
from illama_seg.errors import UserError
from illama_seg.evaluation import ConfusionMatrix


@dataclass(frozen=True)
class Bounds:
    """Largest differences that an export may have.

    Attributes:
        logits: largest difference of a logit, over the largest logit of the image, or
            None for any.
        changed: share of the pixels, or images, whose label changes; where a score
            judges them too, it is not looked at in 8 bits.
        score: points of mIoU, or of top-1 accuracy, in percent.
    """

    logits: float | None
    changed: float
    score: float


BOUNDS = {
    'float32': Bounds(1e-4, 1e-3, 0.1),
    'float16': Bounds(None, 0.02, 0.5),
    'int8': Bounds(None, 0.1, 1.0),
}


class Equality:
    """Differences between a model and its exported file, over some images.

    Args:
        precision: a key of ``BOUNDS``.
        classes: names; of a classification only their number counts.
        segments: whether labels are maps.
    """

    def __init__(self, precision: str, classes: Sequence[str], segments: bool) -> None:
        self.precision, self.bounds = precision, BOUNDS[precision]
        self.logits = 0.0
        self.images = self.labels = self.changed = self.annotated = 0
        self.sizes: list[tuple[int, ...]] = []
        self._segments = segments
        ignored = 255 if segments else -1  # in labels of pixels alone
        self._scores = [ConfusionMatrix(classes, ignored) for _ in range(2)]

    def add(
        self,
        logits: tuple[np.ndarray, np.ndarray],
        labels: tuple[np.ndarray, np.ndarray],
        truth: np.ndarray | None = None,
    ) -> None:
        """Compare an image.

        Args:
            logits: of the model and of the file, of equal shape.
            labels: (H, W) class numbers of both; (1, 1) of a classification.
            truth: annotation, of the shape of the labels.
        """
        self._compare(logits, labels)
        self.images += 1
        if truth is not None:
            self.annotated += 1
            for score, found in zip(self._scores, labels, strict=True):
                score.update(truth, found)

    def add_size(self, size: tuple[int, ...], *logits: np.ndarray) -> None:
        """Compare the logits of images of another size, (height, width) in pixels."""
        self._compare(logits, [values.argmax(1) for values in logits])
        self.sizes.append(size)

    def _compare(
        self, logits: Sequence[np.ndarray], labels: Sequence[np.ndarray]
    ) -> None:
        shapes = [values.shape for values in logits]
        if shapes[0] != shapes[1]:
            raise UserError(
                f'the file gives logits {shapes[1]} where the model gives {shapes[0]}: '
                'converted, this model takes images of one size alone: leave dynamic '
                'out'
            )
        largest = float(np.abs(logits[0]).max())
        difference = float(np.abs(logits[0] - logits[1]).max())
        difference /= largest or 1
        # NaN stays NaN, whatever comes after it.
        self.logits = float(np.maximum(self.logits, difference))
        self.labels += labels[0].size
        self.changed += int((labels[0] != labels[1]).sum())

    @property
    def share(self) -> float:
        """Share of the labels that differ."""
        return self.changed / max(self.labels, 1)

    @property
    def scores(self) -> list[float] | None:
        """Scores of the model and of the file in percent: mIoU or top-1 accuracy."""
        if not self.annotated:
            return None
        if self._segments:
            return [100 * float(np.nanmean(score.iou)) for score in self._scores]
        return [
            100 * float(np.trace(score.counts) / score.counts.sum())
            for score in self._scores
        ]

    def faults(self) -> list[str]:
        """List the bounds that are exceeded."""
        bounds, found, scores = self.bounds, [], self.scores
        if not np.isfinite(self.logits):
            found.append('logits are not finite')
        if bounds.logits is not None and not self.logits <= bounds.logits:
            found.append(
                f'logits differ by {self.logits:.2g} of the largest, allowed '
                f'{bounds.logits:.2g}'
            )
        judged = self.precision == 'int8' and scores is not None
        if self.share > bounds.changed and not judged:
            found.append(
                f'{self.share:.2%} of the labels differ, allowed {bounds.changed:.2%}'
            )
        if scores and not abs(scores[0] - scores[1]) <= bounds.score:
            found.append(
                f'{self._unit} {scores[0]:.1f} becomes {scores[1]:.1f}, '
                f'allowed are {bounds.score:g} points'
            )
        return found

    @property
    def _unit(self) -> str:
        return 'mIoU' if self._segments else 'top-1'

    def summary(self) -> dict[str, Any]:
        """Return the figures, for JSON."""
        return dict(
            precision=self.precision,
            images=self.images,
            other_sizes=self.sizes,
            largest_relative_difference_of_logits=self.logits,
            changed_labels=self.share,
            score=self._unit if self.scores else None,
            scores=self.scores,
        )

    @property
    def _other_sizes(self) -> str:
        sizes = ', '.join('x'.join(map(str, size)) for size in self.sizes)
        return f' and sizes {sizes}' if sizes else ''

    def __str__(self) -> str:
        scores = ''
        if self.scores:
            scores = f', {self._unit} {self.scores[0]:.2f} and {self.scores[1]:.2f}'
        where = f'{self.images} images{self._other_sizes}'
        return (
            f'{where}, model and file: logits differ by {self.logits:.1e} '
            f'of the largest, {self.share:.3%} of the labels differ{scores}'
        )


@torch.no_grad()
def where_they_part(
    model: nn.Module, file: ExportedModel, image: np.ndarray, size: Size | None
) -> str:
    """Compare every stage of the network on an image, for the message of a failure.

    Args:
        model: the model.
        file: its exported file; the stages are exported anew, in float32.
        image: (1, C, H, W) float32, normalised.
        size: as in :func:`illama_seg.deploy.graph.to_onnx`.

    Returns:
        A line for each output of backbone and neck, and for the logits.
    """
    module = Exportable(model, with_stages=True)
    expected = module(torch.from_numpy(image))
    with TemporaryDirectory() as folder:
        path = Path(folder, 'stages.onnx')
        to_onnx(module, path, image.shape[1], size)
        if file.path.suffix == '.xml':
            to_openvino(path, path.with_suffix('.xml'))
            path = path.with_suffix('.xml')
        found = open_session(path).all(image)
    lines = []
    for name, ours, theirs in zip(module.stages, expected, found, strict=True):
        ours = ours.numpy()
        difference = np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1e-30)
        lines.append(f'  {name}: {difference:.1e} of the largest value')
    return '\n'.join(lines)
