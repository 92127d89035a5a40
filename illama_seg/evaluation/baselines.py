"""How much of a data set colour alone, or place alone, solves."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from illama_seg.evaluation.confusion import ConfusionMatrix

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]


def colour_baseline(
    train: Pairs, val: Pairs, classes: Sequence[str], bins: int = 16
) -> dict:
    """Most frequent class of each colour: a per-pixel colour classifier.

    Args:
        train, val: pairs of an image (H, W, 3) uint8 and its labels (H, W); label 255
            is ignored.
        classes: names of the classes.
        bins: cells a channel is cut into.

    Returns:
        The summary of a :class:`ConfusionMatrix` over ``val``.
    """
    votes = np.zeros((bins**3, len(classes)), np.int64)
    for image, label in train:
        counted = label != 255
        np.add.at(votes, (_colour_cell(image, bins)[counted], label[counted]), 1)
    choice = votes.argmax(1)
    matrix = ConfusionMatrix(classes)
    for image, label in val:
        matrix.update(label, choice[_colour_cell(image, bins)])
    return matrix.summary()


def position_baseline(
    train: Pairs, val: Pairs, classes: Sequence[str], grid: int = 32
) -> dict:
    """Most frequent class of each place: a model that ignores the image.

    Args:
        train, val: pairs of an image (H, W, 3) and its labels (H, W); 255 is ignored.
        classes: names of the classes.
        grid: places along each side.

    Returns:
        The summary of a :class:`ConfusionMatrix` over ``val``.
    """
    votes = np.zeros((grid, grid, len(classes)), np.int64)
    for _, label in train:
        rows, columns = _place(label.shape, grid)
        counted = label != 255
        np.add.at(votes, (rows[counted], columns[counted], label[counted]), 1)
    choice = votes.argmax(2).astype(np.uint8)
    matrix = ConfusionMatrix(classes)
    for _, label in val:
        height, width = label.shape
        guess = cv2.resize(choice, (width, height), interpolation=cv2.INTER_NEAREST)
        matrix.update(label, guess)
    return matrix.summary()


def _colour_cell(image: np.ndarray, bins: int) -> np.ndarray:
    red, green, blue = np.moveaxis(image.astype(np.int64) * bins // 256, -1, 0)
    return (red * bins + green) * bins + blue


def _place(shape: tuple[int, ...], grid: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.indices(shape)
    return rows * grid // shape[0], columns * grid // shape[1]
