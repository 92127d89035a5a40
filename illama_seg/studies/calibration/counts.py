"""Calibration from streaming counts: confidence compared with accuracy.

Expected calibration error as in Guo et al., arXiv 1706.04599: samples (images or
pixels) are sorted into bins of equal width by confidence, the probability of the
predicted class; each bin compares mean confidence and accuracy. All scores are
fractions in [0, 1], except NLL (nats) and Brier's score (0 to 2).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from illama_seg.errors import UserError

CELLS = 1000  # cells in a bin, for bins of equal counts
SCORES = {
    'accuracy': 'accuracy',
    'confidence': 'confidence',
    'ece': 'ECE',
    'adaptive_ece': 'adaptive ECE',
    'mce': 'MCE',
    'nll': 'NLL',
    'brier': 'Brier',
}
_ROWS = 8192  # logits converted at once


class CalibrationCounts:
    """Samples counted by confidence, in constant memory.

    Args:
        classes: names of the classes.
        num_bins: number of confidence bins, at least 1; the papers use 15.
        ignore_index: label that is not counted.
    """

    def __init__(
        self, classes: Sequence[str], num_bins: int = 15, ignore_index: int = 255
    ) -> None:
        if num_bins < 1:
            raise UserError('expected at least 1', num_bins=num_bins)
        self.classes, self.num_bins = tuple(classes), num_bins
        self.ignore_index = ignore_index
        # Samples, sum of their confidence, and correct samples.
        self.cells = np.zeros((3, num_bins * CELLS))
        self.predicted = np.zeros((3, len(self.classes), num_bins))
        self.nll = self.brier = 0.0

    def update(self, logits: Tensor, labels: Tensor, temperature: float = 1.0) -> None:
        """Count logits (N, num_classes), divided by the temperature, and labels (N,).

        Raises a UserError if shapes or labels do not fit the classes, or a logit is not
        finite.
        """
        num_classes = len(self.classes)
        if logits.shape != (len(labels), num_classes):
            raise UserError(
                f'logits of shape {tuple(logits.shape)} for {len(labels)} labels: '
                f'expected ({len(labels)}, {num_classes}), a column for each class'
            )
        counted = labels != self.ignore_index
        logits, labels = logits[counted], labels[counted].long()
        if not len(labels):
            return
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0 or highest >= num_classes:
            raise UserError(
                f'label {lowest if lowest < 0 else highest}: expected 0..'
                f'{num_classes - 1}, or {self.ignore_index} for ignored samples'
            )
        if not logits.isfinite().all():
            raise UserError('logits are not finite: the training diverged')
        log_p = (logits.float() / temperature).log_softmax(1)
        of_label = log_p.gather(1, labels[:, None])[:, 0].double()
        self.nll -= float(of_label.sum())
        squares = log_p.mul(2).exp().sum(1).double()
        self.brier += float((squares - 2 * of_label.exp() + 1).sum())
        best, guess = log_p.max(1)
        confidence = best.exp().double().clamp(max=1).cpu().numpy()
        hits = (guess == labels).double().cpu().numpy()
        # A bin includes its upper edge, as in the paper; the first one also includes 0.
        cell = np.ceil(confidence * self.num_bins * CELLS).astype(int) - 1
        cell = cell.clip(min=0)
        place = guess.cpu().numpy() * self.num_bins + cell // CELLS
        for row, weights in enumerate((None, confidence, hits)):
            self.cells[row] += np.bincount(cell, weights, self.cells.shape[1])
            counts = self.predicted[row]
            counts += np.bincount(place, weights, counts.size).reshape(counts.shape)

    @property
    def bins(self) -> np.ndarray:
        """Array (3, num_bins): samples, sum of their confidence, correct samples."""
        return self.cells.reshape(3, self.num_bins, CELLS).sum(2)

    def summary(self) -> dict:
        """Compute the samples and ``SCORES``, None if nothing was counted.

        ``ece`` and ``mce`` use bins of equal width, ``adaptive_ece`` (arXiv 1904.01685)
        bins of equal counts, where confidences in one of the ``CELLS`` parts of a bin
        count as equal.
        """
        samples, confidence, hits = (float(row.sum()) for row in self.cells)
        if not samples:
            return dict(samples=0, **dict.fromkeys(SCORES))
        counts, gaps = self.bins[0], _gaps(self.bins)
        return dict(
            samples=int(samples),
            accuracy=hits / samples,
            confidence=confidence / samples,
            ece=float(gaps.sum() / samples),
            adaptive_ece=float(_gaps(self._equal_counts()).sum() / samples),
            mce=float((gaps[counts > 0] / counts[counts > 0]).max()),
            nll=self.nll / samples,
            brier=self.brier / samples,
        )

    def diagram(self) -> list[dict]:
        """Return each bin's edges, samples, confidence and accuracy, None if empty."""
        edges = np.linspace(0, 1, self.num_bins + 1).tolist()
        return [
            dict(low=low, high=high, **_means(row))
            for low, high, row in zip(edges[:-1], edges[1:], self.bins.T, strict=True)
        ]

    def per_class(self) -> list[dict]:
        """Return samples, means and calibration error of each predicted class."""
        rows = []
        for number, name in enumerate(self.classes):
            bins = self.predicted[:, number]
            count = bins[0].sum()
            error = float(_gaps(bins).sum() / count) if count else None
            rows.append({'class': name, **_means(bins.sum(1)), 'ece': error})
        return rows

    def _equal_counts(self) -> np.ndarray:
        """Make ``bins`` of equal counts; a cell on an edge is divided."""
        counts = self.cells[0]
        ends = counts.cumsum()
        starts, total = ends - counts, ends[-1]
        bins = []
        for number in range(self.num_bins):
            low, high = (total * n / self.num_bins for n in (number, number + 1))
            part = (np.minimum(ends, high) - np.maximum(starts, low)).clip(min=0)
            share = np.divide(part, counts, np.zeros_like(part), where=counts > 0)
            bins.append(self.cells @ share)
        return np.transpose(bins)


def fit_temperature(logits: Tensor, labels: Tensor, largest: float = 100.0) -> float:
    """Find the temperature of logits (N, num_classes) with the lowest NLL.

    The NLL is convex in the inverse temperature, so bisection finds the zero of its
    slope (Guo et al., section 4.2), or the end of the range up to which it decreases.
    ``largest`` is the largest temperature, and the inverse of the smallest.
    """
    if not len(labels):
        raise UserError('no sample to fit a temperature to: hold more images out')
    low, high = -np.log(largest), np.log(largest)  # of the inverse temperature's log
    for _ in range(50):
        middle = (low + high) / 2
        rises = _slope(logits, labels, float(np.exp(middle))) > 0
        low, high = (low, middle) if rises else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _slope(logits: Tensor, labels: Tensor, inverse: float) -> float:
    """Compute the derivative of the summed NLL by the inverse temperature."""
    total = 0.0
    for rows, truth in zip(logits.split(_ROWS), labels.split(_ROWS), strict=True):
        rows = rows.float()
        mean = ((rows * inverse).softmax(1) * rows).sum(1)
        correct = rows.gather(1, truth.long()[:, None])[:, 0]
        total += float((mean - correct).sum(dtype=torch.float64))
    return total


def _gaps(bins: np.ndarray) -> np.ndarray:
    """Compute samples times |mean confidence - accuracy| of each bin."""
    return abs(bins[1] - bins[2])


def _means(row: np.ndarray) -> dict:
    samples, confidence, hits = row.tolist()
    if not samples:
        return dict(samples=0, confidence=None, accuracy=None)
    return dict(
        samples=round(samples), confidence=confidence / samples, accuracy=hits / samples
    )
