"""Intersection over union from a streaming confusion matrix."""

from collections.abc import Sequence

import numpy as np

from illama_seg.errors import UserError


def class_numbers(values: np.ndarray) -> np.ndarray:
    """Return class numbers as int64, from integers or from floats without a fraction.

    Raises:
        UserError: if a value has a fraction or is not finite.
    """
    if values.dtype.kind == 'f' and values.size:
        wrong = values[~(np.isfinite(values) & (values == np.trunc(values)))]
        if wrong.size:
            raise UserError(f'class number {wrong[0]}: expected an integer')
    return values.astype(np.int64)


class ConfusionMatrix:
    """Counts of pixels by annotated and predicted class, in constant memory.

    The results are dataset-level, as ADE20K's benchmark defines them: for each class
    the sum of intersections over the sum of unions, then the mean over the classes that
    occur in the annotations or the predictions.

    Args:
        classes: names of the classes.
        ignore_index: label that is not counted.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int = 255) -> None:
        self.classes = tuple(classes)
        self.ignore_index = ignore_index
        self.counts = np.zeros((len(self.classes),) * 2, np.int64)

    def update(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count an annotation (H, W) and a prediction (H, W), both of class numbers.

        mmseg's heads of one channel predict class numbers in float32.

        Raises:
            UserError: if the shapes differ, or a number is out of range or no integer.
        """
        if label.shape != prediction.shape:
            raise UserError(
                f'annotation {label.shape} and prediction {prediction.shape} differ in '
                'shape'
            )
        counted = label != self.ignore_index
        truth, guess = class_numbers(label[counted]), class_numbers(prediction[counted])
        num_classes = len(self.classes)
        if truth.size == 0:
            return
        lowest, highest = guess.min(), max(truth.max(), guess.max())
        if lowest < 0 or highest >= num_classes:
            raise UserError(
                f'class number {lowest if lowest < 0 else highest}: expected 0..'
                f'{num_classes - 1}'
            )
        flat = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
        self.counts += flat.reshape(num_classes, num_classes)

    @property
    def iou(self) -> np.ndarray:
        """(num_classes,) in [0, 1]; NaN where a class never occurs."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    @property
    def accuracy(self) -> np.ndarray:
        """(num_classes,) share of a class's pixels found, in [0, 1] or NaN."""
        hits, total = np.diag(self.counts), self.counts.sum(1)
        return np.divide(hits, total, out=np.full(len(hits), np.nan), where=total > 0)

    def summary(self) -> dict:
        """Return mIoU, mAcc, aAcc (pixel accuracy) and each class's values in percent.

        ``final_score`` is that of ADE20K's benchmark, the mean of mIoU and aAcc.
        """
        total = max(int(self.counts.sum()), 1)
        percent = [
            (name, float(100 * iou), float(100 * acc))
            for name, iou, acc in zip(
                self.classes, self.iou, self.accuracy, strict=True
            )
            if not np.isnan(iou)
        ]
        miou = float(np.mean([iou for _, iou, _ in percent])) if percent else 0.0
        pixels = 100 * float(np.trace(self.counts)) / total
        return dict(
            mIoU=miou,
            mAcc=float(100 * np.nanmean(self.accuracy)) if percent else 0.0,
            aAcc=pixels,
            final_score=(miou + pixels) / 2,
            classes={
                name: dict(IoU=iou, Acc=None if np.isnan(acc) else acc)
                for name, iou, acc in percent
            },
        )

    def most_confused(self, limit: int, by: str = 'pixels') -> list[dict]:
        """Return the most confused pairs of classes, the worst first.

        Args:
            limit: pairs to list.
            by: 'pixels', or 'share' of the annotated class's pixels.

        Returns:
            ``dict(annotated=name, predicted=name, pixels=int, share=percent)`` of each.
        """
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        share = 100 * wrong / np.maximum(self.counts.sum(1, keepdims=True), 1)
        order = np.argsort(-(wrong if by == 'pixels' else share), axis=None)
        pairs = [divmod(int(place), len(wrong)) for place in order[:limit]]
        return [
            dict(
                annotated=self.classes[truth],
                predicted=self.classes[guess],
                pixels=int(wrong[truth, guess]),
                share=float(share[truth, guess]),
            )
            for truth, guess in pairs
            if wrong[truth, guess]
        ]
