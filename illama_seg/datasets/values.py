"""Values of images as a loader hands them over, and those of a split."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from illama_seg.datasets.decoding import KEEPS_VALUES, stored_values
from illama_seg.datasets.tiff import tiff_header

# Below this highest value of 16 bits, the upper 8 bits are at most 63 of 255.
NARROW = 1 << 14
_DEEP_SUFFIXES = ('.png', '.tif', '.tiff')
_PIXELS = 1 << 16  # of an image, for mean and deviation


@dataclass
class ImageValues:
    """Values of an image.

    Attributes:
        path: path of the image.
        dtype: type of the values as loaded, such as 'uint8'.
        channels: number of channels as loaded.
        low, high: lowest and highest value.
        pixels: pixels that were summed up.
        sums, squares: sums of the values and of their squares, (channels,).
        bands: bands in the file, where its header says so, else 0.
        stored: values in the file, where the loader loses some of them.
    """

    path: str
    dtype: str
    channels: int
    low: float
    high: float
    pixels: int
    sums: np.ndarray
    squares: np.ndarray
    bands: int = 0
    stored: ImageValues | None = None


def measure_values(
    path: str, image: np.ndarray, content: bytes | None = None
) -> ImageValues:
    """Measure an image as loaded, (H, W) or (H, W, channels).

    Args:
        path: path of the image.
        image: the image.
        content: content of the file, to find the values that the loader lost.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    step = max(int((image.shape[0] * image.shape[1] / _PIXELS) ** 0.5), 1)
    sample = image[::step, ::step].reshape(-1, channels).astype(np.float64)
    found = ImageValues(
        path,
        str(image.dtype),
        channels,
        float(image.min()),
        float(image.max()),
        len(sample),
        sample.sum(0),
        (sample**2).sum(0),
    )
    if content is None:
        return found
    header = tiff_header(content)
    found.bands = header.bands if header else 0
    if found.high <= 255 and (stored := stored_values(path, content)) is not None:
        whole = measure_values(path, stored)
        if whole.high != found.high:
            found.stored = whole
    return found


def narrow_warning(path: str | os.PathLike, image: np.ndarray) -> str | None:
    """Warn of a file of more than 8 bits of which the loader left a few values.

    Args:
        path: path of the file.
        image: the image as loaded.
    """
    if image.max() > 255 or Path(path).suffix.lower() not in _DEEP_SUFFIXES:
        return None
    stored = stored_values(path, Path(path).read_bytes())
    if stored is None or stored.max() == image.max() or stored.max() >= NARROW:
        return None
    return (
        f'{path} holds values of {stored.dtype} up to {stored.max():,.7g}, and the '
        f'loader made 0..{image.max():.0f} of 0..255 of them: the model sees next to '
        'nothing. Stretch the file to its 16 bits, or use a model that was trained on '
        f'such files with {KEEPS_VALUES}'
    )


@dataclass
class SplitValues:
    """Values of the images of a split.

    Attributes:
        images: number of images.
        channels: number of channels -> number of images, and path of one.
        dtypes: type of the values -> number of images.
        low, high: lowest and highest value of all.
        flat: paths of the images whose values are all equal, and that value.
        moments: number of channels -> pixels, sums and squares.
        lost: number of images that lose values, and the first one.
        narrow: bands in the files of which fewer are loaded, and path of one.
    """

    images: int = 0
    channels: dict[int, tuple[int, str]] = field(default_factory=dict)
    dtypes: Counter[str] = field(default_factory=Counter)
    low: float = np.inf
    high: float = -np.inf
    flat: list[tuple[str, float]] = field(default_factory=list)
    moments: dict[int, list] = field(default_factory=dict)
    lost: int = 0
    lost_high: float = 0
    stored: SplitValues | None = None
    narrow: tuple[int, int, str] | None = None

    def add(self, image: ImageValues) -> None:
        """Count an image in."""
        self.images += 1
        count, path = self.channels.get(image.channels, (0, image.path))
        self.channels[image.channels] = count + 1, path
        self.dtypes[image.dtype] += 1
        self.low, self.high = min(self.low, image.low), max(self.high, image.high)
        if image.low == image.high:
            self.flat.append((image.path, image.low))
        sums = [image.pixels, image.sums, image.squares]
        before = self.moments.get(image.channels)
        self.moments[image.channels] = (
            sums
            if before is None
            else [a + b for a, b in zip(before, sums, strict=True)]
        )
        if image.stored is not None:
            self.stored = self.stored or SplitValues()
            self.stored.add(image.stored)
            self.lost_high = max(self.lost_high, image.high)
        if image.bands > image.channels and self.narrow is None:
            self.narrow = image.bands, image.channels, image.path

    def mean_and_deviation(self, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each channel, (channels,)."""
        pixels, sums, squares = self.moments[channels]
        mean = sums / pixels
        return mean, np.sqrt(np.maximum(squares / pixels - mean**2, 0))

    def summary(self) -> dict:
        """Return the numbers for a JSON file."""
        if not self.images:
            return {}
        common = max(self.channels, key=lambda number: self.channels[number][0])
        mean, deviation = self.mean_and_deviation(common)
        return dict(
            dtype=self.dtypes.most_common(1)[0][0],
            channels=common,
            lowest=self.low,
            highest=self.high,
            mean=rounded(mean),
            std=rounded(deviation),
        )


def rounded(numbers: np.ndarray) -> list[float]:
    """Round to four digits, for settings and JSON files."""
    return [float(f'{number:.4g}') for number in numbers]


def pipeline_of(dataset: Mapping) -> Sequence[Mapping]:
    """Return the pipeline in a data set's config, or in that of a wrapped one."""
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
        if inner is None:
            return []
        dataset = inner
    return dataset['pipeline']
