"""Baselines that know only the colour or only the position of a pixel."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from illama_seg.evaluation.confusion import ConfusionMatrix

Pairs = Iterable[tuple[np.ndarray, np.ndarray]]


def colour_baseline(
    train: Pairs, val: Pairs, classes: Sequence[str], bins: int = 16
) -> dict:
    """Predict the most frequent class of each pixel's colour.

    Args:
        train, val: pairs of an image (H, W, 3) uint8 and its labels (H, W); label 255
            is ignored.
        classes: names of the classes.
        bins: number of intervals of each channel.

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
    """Predict the most frequent class of each position, ignoring the image.

    Args:
        train, val: pairs of an image (H, W, 3) and its labels (H, W); 255 is ignored.
        classes: names of the classes.
        grid: cells along each side.

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
