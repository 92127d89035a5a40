"""Find what the values of a split's images do not fit in a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from illama_seg.datasets.decoding import KEEPS_VALUES, loads_bgr
from illama_seg.datasets.values import NARROW, SplitValues, rounded

ONE_VALUE = 'image of one value'
BANDS_PREPROCESSOR = 'BandsPreProcessor'
_OFF = 4.0  # of 8-bit images by ImageNet's mean and deviation all values are below 2.7
_FLAT = 0.02
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
    is_narrow = stored.high < NARROW or values.lost_high == 0
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
        rounded(_in_model_order(numbers, preprocessor))
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


def _channels(number: int) -> str:
    return f'{number} channel{"s" * (number > 1)}'


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
