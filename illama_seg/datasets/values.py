"""Values of images: what a loader hands over, and whether a config fits them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from illama_seg.datasets.decoding import KEEPS_VALUES, loads_bgr, stored_values
from illama_seg.datasets.tiff import tiff_header

ONE_VALUE = 'image of one value'
BANDS_PREPROCESSOR = 'BandsPreProcessor'
# Below this highest value of 16 bits, the upper 8 bits are at most 63 of 255.
_NARROW = 1 << 14
_DEEP_SUFFIXES = ('.png', '.tif', '.tiff')
_OFF = 4.0  # of 8-bit images by ImageNet's mean and deviation all values are below 2.7
_FLAT = 0.02
_PIXELS = 1 << 16  # of an image, for mean and deviation
# Steps of a pipeline that leave mean and deviation about what they were.
_KEEPING = {
    'CheckAnnotations',
    'LoadAnnotations',
    'PackSegInputs',
    'PhotoMetricDistortion',
    'RandomCrop',
    'RandomFlip',
    'RandomResize',
    'Resize',
}


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
    if stored is None or stored.max() == image.max() or stored.max() >= _NARROW:
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
            mean=_rounded(mean),
            std=_rounded(deviation),
        )


# Kind, message, level.
Judgement = tuple[str, str, str]


def judge_values(
    values: SplitValues, pipeline: Sequence[Mapping], model: Mapping
) -> Iterator[Judgement]:
    """Find what the values of a split do not fit in a config.

    Args:
        values: values of the images as loaded.
        pipeline: steps of the data set, the loader first.
        model: the config's model.

    Yields:
        A few words, the message with the fix, and 'fault' or 'warning'.
    """
    if not values.images:
        return
    preprocessor = model.get('data_preprocessor') or {}
    takes = (model.get('backbone') or {}).get('in_channels', 3)
    if values.stored is not None:
        yield _lost(values, values.stored, pipeline, preprocessor, takes)
    for channels, (count, path) in values.channels.items():
        if channels != takes:
            yield (
                'channels',
                f'{path} is loaded with {_channels(channels)} ({count:,} of '
                f'{values.images:,} images), but model.backbone.in_channels={takes}: '
                f'set {_settings(values, channels, preprocessor, takes)}, or another '
                'color_type in LoadImageFromFile',
                'fault',
            )
    if values.stored is None:
        yield from _scale(values, pipeline, preprocessor, takes)
    names = [step['type'] for step in pipeline]
    if 'PhotoMetricDistortion' in names and {*values.dtypes} - {'uint8'}:
        number = names.index('PhotoMetricDistortion')
        yield (
            'augmentation of 8 bits',
            f'the images are loaded as {", ".join(values.dtypes)}, of which '
            f'PhotoMetricDistortion (step {number} of the pipeline) keeps 0..255 only: '
            'leave it out',
            'fault',
        )
    if values.narrow:
        bands, channels, path = values.narrow
        yield (
            'bands not read',
            f'{path} has {bands} bands, and {channels} of them are loaded: for all '
            f'set {KEEPS_VALUES} in LoadImageFromFile of each pipeline and '
            f'model.backbone.in_channels={bands}',
            'warning',
        )
    yield from _flat(values)


def _lost(
    values: SplitValues,
    stored: SplitValues,
    pipeline: Sequence[Mapping],
    preprocessor: Mapping,
    takes: int,
) -> Judgement:
    channels, (_, path) = next(iter(stored.channels.items()))
    is_narrow = stored.high < _NARROW or values.lost_high == 0
    others = f' and {stored.images - 1:,} others' if stored.images > 1 else ''
    distorted = any(step['type'] == 'PhotoMetricDistortion' for step in pipeline)
    return (
        'values lost' if is_narrow else 'depth lost',
        f'{path}{others} hold values of {next(iter(stored.dtypes))} up to '
        f'{stored.high:,.7g}, and the loader makes 8 bits of them, here 0..'
        f'{values.lost_high:.0f} of 0..255. To keep the values set {KEEPS_VALUES} in '
        f'LoadImageFromFile of each pipeline and '
        f'{_settings(stored, channels, preprocessor, takes)}'
        + (', and leave out PhotoMetricDistortion, which takes 8 bits' * distorted),
        'fault' if is_narrow else 'warning',
    )


def _scale(
    values: SplitValues, pipeline: Sequence[Mapping], preprocessor: Mapping, takes: int
) -> Iterator[Judgement]:
    """Compare mean and deviation with those of the config's preprocessor."""
    mean, std = (preprocessor.get(key) for key in ('mean', 'std'))
    steps = {step['type'] for step in pipeline[1:]}
    if not mean or not std or takes not in values.moments or steps - _KEEPING:
        return
    if len(mean) not in (1, takes) or len(std) != len(mean):
        return  # a contradiction of the config
    found, deviation = (
        _in_model_order(numbers, preprocessor)
        for numbers in values.mean_and_deviation(takes)
    )
    for numbers in (found, deviation):
        if not np.isfinite(numbers).all():
            return
    offset = np.abs(found - np.array(mean, float)) / np.array(std, float)
    ratio = deviation / np.array(std, float)
    is_off = offset.max() > _OFF or ratio.max() > _OFF
    if is_off or (ratio.max() < _FLAT and values.high > values.low):
        yield (
            'mean and std',
            f'the images have values of {values.low:,.7g} to {values.high:,.7g}, which '
            f'model.data_preprocessor.mean={list(mean)} and std={list(std)} do not '
            f'fit: set {_settings(values, takes, preprocessor, takes)}',
            'fault',
        )


def _flat(values: SplitValues) -> Iterator[Judgement]:
    every = values.images > 1 and len(values.flat) == values.images
    for path, value in values.flat:
        colour = ', black' if value == 0 else ''
        yield (
            ONE_VALUE,
            f'{path}: every value is {value:g}{colour}. Remove it with its annotation, '
            'or make it anew from the source',
            'fault' if every else 'warning',
        )
    if len(values.flat) == values.images:
        return
    for channels, (pixels, sums, squares) in values.moments.items():
        mean = sums / pixels
        for band in np.flatnonzero(squares / pixels - mean**2 <= 1e-9 * mean**2):
            yield (
                'band of one value',
                f'channel {band} of {channels} is {mean[band]:g} in all images, such '
                'as an alpha channel: nothing is learnt from it',
                'warning',
            )


def _settings(
    values: SplitValues, channels: int, preprocessor: Mapping, takes: int
) -> str:
    """Return the settings of a model for images of these values and channels."""
    key = 'model.data_preprocessor'
    mean, std = (
        _rounded(_in_model_order(numbers, preprocessor))
        for numbers in values.mean_and_deviation(channels)
    )
    lists = mean, [number or 1.0 for number in std]
    texts = [f'[{",".join(map(str, numbers))}]' for numbers in lists]
    settings = [f'{key}.mean={texts[0]}', f'{key}.std={texts[1]}']
    if channels not in (1, 3) and preprocessor.get('type') != BANDS_PREPROCESSOR:
        settings.insert(0, f'{key}.type={BANDS_PREPROCESSOR}')
    if channels != takes:
        settings.insert(0, f'model.backbone.in_channels={channels}')
    return ' '.join(settings)


def _in_model_order(numbers: np.ndarray, preprocessor: Mapping) -> np.ndarray:
    turns = preprocessor.get('bgr_to_rgb') or preprocessor.get('rgb_to_bgr')
    if turns and len(numbers) >= 3:
        return np.concatenate([numbers[2::-1], numbers[3:]])
    return numbers


def _rounded(numbers: np.ndarray) -> list[float]:
    return [float(f'{number:.4g}') for number in numbers]


def _channels(number: int) -> str:
    return f'{number} channel{"s" * (number > 1)}'


def pipeline_of(dataset: Mapping) -> Sequence[Mapping]:
    """Return the pipeline in a data set's config, or in that of a wrapped one."""
    while 'pipeline' not in dataset:
        inner = dataset.get('dataset') or (dataset.get('datasets') or [None])[0]
        if inner is None:
            return []
        dataset = inner
    return dataset['pipeline']


def order_warning(loader: Any, model: Mapping) -> str | None:
    """Warn of a loader that keeps the file's order, where the model turns BGR."""
    preprocessor = model.get('data_preprocessor') or {}
    takes = (model.get('backbone') or {}).get('in_channels', 3)
    if loads_bgr(loader) or takes < 3 or not preprocessor.get('bgr_to_rgb'):
        return None
    return (
        f'{type(loader).__name__} keeps the order of the bands in the file, and '
        'model.data_preprocessor.bgr_to_rgb=True turns the first three: right where '
        'the file begins with blue, green, red; else set '
        'model.data_preprocessor.bgr_to_rgb=False'
    )
