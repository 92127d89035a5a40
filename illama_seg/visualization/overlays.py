"""Overlays of labels on images, with a legend."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

Palette = Sequence[Sequence[int]]


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Palette, opacity: float = 0.5
) -> np.ndarray:
    """Paint class colours over an image.

    Args:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W), class numbers; 255 is not painted.
        palette: RGB colour of each class.
        opacity: opacity of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8, BGR.
    """
    paint = colourise(labels, palette)[..., ::-1]
    mixed = cv2.addWeighted(image, 1 - opacity, paint, opacity, 0)
    return np.where((labels == 255)[..., None], image, mixed)


def colourise(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Colour labels (H, W) -> (H, W, 3) uint8 RGB; 255 is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = np.asarray(palette, np.uint8)
    return colours[labels]


def add_legend(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Palette
) -> np.ndarray:
    """Name the classes of ``labels``, largest first, in a strip below the image.

    Arguments are those of :func:`overlay`, with the names of the classes; the result is
    higher than the image by the strip.
    """
    numbers, counts = np.unique(labels[labels != 255], return_counts=True)
    numbers = numbers[np.argsort(-counts)]
    return np.vstack([image, legend(image.shape[1], numbers, classes, palette)])


def legend(
    width: int, numbers: Iterable[int], classes: Sequence[str], palette: Palette
) -> np.ndarray:
    """Draw the names of classes beside their colours, in the order given.

    Args:
        width: pixels of the strip.
        numbers: class numbers.
        classes: names of all classes.
        palette: RGB colour of each class.

    Returns:
        (H, width, 3) uint8, BGR; as high as the names need.
    """
    font, line = cv2.FONT_HERSHEY_SIMPLEX, 1
    numbers = list(numbers)
    names = [classes[number].strip() for number in numbers]
    widths = [cv2.getTextSize(name, font, 0.45, line)[0][0] + 30 for name in names]
    # Readable on a large image, and no name is cut off on a small one.
    scale = max(width / 1000, 1.0)
    scale = min([scale, *(width / needed for needed in widths)])
    room, row, x, cells = width / scale, 0, 0, []
    for number, name, needed in zip(numbers, names, widths, strict=True):
        if x and x + needed > room:
            row, x = row + 1, 0
        cells.append((row, x, number, name))
        x += needed

    def at(*place: float) -> tuple[int, ...]:
        return tuple(round(scale * side) for side in place)

    strip = np.full((*at((row + 1) * 22), width, 3), 255, np.uint8)
    for row, x, number, name in cells:
        y = row * 22
        colour = tuple(int(value) for value in palette[number][::-1])
        cv2.rectangle(strip, at(x + 4, y + 5), at(x + 18, y + 17), colour, -1)
        place = at(x + 22, y + 16)
        line = max(round(scale), 1)
        cv2.putText(
            strip, name, place, font, 0.45 * scale, (0, 0, 0), line, cv2.LINE_AA
        )
    return strip


def side_by_side(image: np.ndarray, labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Join an image and its overlay; ignored pixels of the overlay are dark.

    Args:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W), class numbers, 255 for ignored pixels.
        palette: RGB colour of each class.

    Returns:
        (H, 2 W + gap, 3) uint8, RGB.
    """
    painted = overlay(image, labels, palette, 0.6)
    painted[labels == 255] = image[labels == 255] // 4
    gap = np.full((len(image), max(image.shape[1] // 60, 1), 3), 255, np.uint8)
    return np.hstack([image, gap, painted])[..., ::-1]
