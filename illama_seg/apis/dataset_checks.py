"""Data sets that cannot be meant: names, annotations, images; before a training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.fileio import get
from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from PIL import Image

from illama_seg.datasets.annotations import IGNORED
from illama_seg.datasets.decoding import image_loader
from illama_seg.datasets.inspection import TURNED, is_turned
from illama_seg.datasets.value_checks import ONE_VALUE, judge_values, order_warning
from illama_seg.datasets.values import SplitValues, measure_values, pipeline_of
from illama_seg.errors import UserError

_JUDGED = 8  # images whose values are looked at


def check_class_names(dataset: Mapping, option: str) -> None:
    """Refuse ``classes=('weed')``, a string, where ``('weed',)`` is meant.

    Also another number of colours than of classes, and data sets in a wrapper that
    differ in their classes, colours or numbering.

    Raises:
        UserError: names the option, and the comma.
    """
    meta = dataset.get('metainfo') or {}
    names, palette = meta.get('classes'), meta.get('palette')
    if isinstance(names, str) and not os.path.isfile(names):
        raise UserError(
            f'{option}.metainfo.classes={names!r} is a string: expected names in a '
            f'list, or a file of them; for one class put a comma, ({names!r},)'
        )
    if palette and isinstance(names, list | tuple) and len(palette) < len(names):
        raise UserError(
            f'{option}.metainfo.palette has {len(palette)} colours, but its classes '
            f'names {len(names)} classes: set one colour, [R, G, B], for each'
        )
    if 'dataset' in dataset:
        check_class_names(dataset['dataset'], f'{option}.dataset')
    parts = dataset.get('datasets') or ()
    for number, part in enumerate(parts):
        name = f'{option}.datasets.{number}'
        check_class_names(part, name)
        for key in ('metainfo', 'reduce_zero_label'):
            found, expected = (_as_lists(each.get(key)) for each in (part, parts[0]))
            if (
                found != expected
                and None not in (found, expected)
                and part.get('type') == parts[0].get('type')
                and not dataset.get('ignore_keys')
            ):
                raise UserError(
                    f'{name}.{key}={found}, but {option}.datasets.0.{key}={expected}: '
                    'set the same in all data sets of the wrapper'
                )


def _as_lists(value: Any) -> Any:
    """Return a setting with its tuples as lists, as they are equal."""
    if isinstance(value, Mapping):
        return {key: _as_lists(part) for key, part in value.items()}
    return [*map(_as_lists, value)] if isinstance(value, list | tuple) else value


def check_names(dataset: Any, option: str) -> None:
    """Refuse a data set without names of classes, which mmseg's metric needs.

    Args:
        dataset: built, with a ``metainfo``.
        option: its place in the config, for the message.

    Raises:
        UserError: names the data set, the keys found and the fix.
    """
    found = ', '.join(map(str, dataset.metainfo)) or 'nothing'
    raise UserError(
        f'{option} ({type(dataset).__name__}) names no classes: its metainfo has '
        f"{found}: expected 'classes' (mmseg before 1.0: CLASSES): set {option}."
        'metainfo=dict(classes=(...), palette=[...]), or METAINFO in the class'
    )


def check_masks(dataset: Any) -> None:
    """Refuse training annotations of one label alone, beside 255, which is ignored.

    Masks are often written as 0 and 255; their object would be ignored. Of other single
    labels nothing is learnt either: the loss falls to 0. Reads annotations until there
    are two labels, mostly the first.

    Raises:
        UserError: names the last annotation and the fix.
    """
    is_seg = isinstance(dataset, BaseSegDataset) and dataset.ignore_index == IGNORED
    if not is_seg or dataset.reduce_zero_label or dataset.label_map:
        return
    if len(dataset.metainfo.get('classes') or ()) < 2:
        return
    labels: set[int] = set()
    path = ''
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('seg_map_path') or ''
        if not os.path.isfile(path):
            return  # no annotations, or on another storage backend
        try:
            with Image.open(path) as image:
                labels |= {*np.unique(np.asarray(image)).tolist()}
        except Exception:  # a damaged file may raise anything: it is named when loaded
            return
        if len(labels - {IGNORED}) > 1:
            return
    if labels == {0, IGNORED}:
        raise UserError(
            f'{path}, and all other training annotations: the only labels are 0 and '
            f'{IGNORED}, and {IGNORED} is ignored: write 1 for the object'
        )
    if path:
        only = max(labels - {IGNORED}, default=IGNORED)
        beside = f' beside {IGNORED}' if labels > {IGNORED} else ''
        raise UserError(
            f'{path}, and all other training annotations: the only label{beside} is '
            f'{only}, so nothing is learnt: write the number of its class into each '
            f'pixel, from 0 to {len(dataset.metainfo["classes"]) - 1}'
        )


def check_zero_labels(cfg: Config, datasets: Mapping[str, Any]) -> None:
    """Refuse ``reduce_zero_label`` that differs between what reads the same labels.

    Between a data set and the ``LoadAnnotations`` of its pipeline, and between the data
    sets of one class that train and validate.

    Args:
        cfg: config of the run.
        datasets: split -> data set, built.

    Raises:
        UserError: names both options.
    """
    found: dict[type, tuple[str, bool]] = {}
    for split, built in datasets.items():
        settings: Any = cfg[f'{split}_dataloader'].dataset
        for option, part, dataset in _leaves(
            f'{split}_dataloader.dataset', settings, built
        ):
            key, value = f'{option}.reduce_zero_label', dataset.reduce_zero_label
            for number, step in enumerate(part.get('pipeline') or ()):
                asked = step.get('reduce_zero_label')
                if asked is not None and asked != value:
                    name = f'{option}.pipeline.{number}.reduce_zero_label'
                    raise UserError(
                        f'{name}={asked} ({step.get("type")}), but {key}={value}: set '
                        f'{key}={asked}, and leave it out of the pipeline'
                    )
            other, expected = found.setdefault(type(dataset), (key, value))
            if value != expected:
                raise UserError(
                    f'{key}={value}, but {other}={expected}: label 1 is class '
                    f'{1 - value} in the one and class {1 - expected} in the other: '
                    'set the same in both'
                )


def _leaves(option: str, settings: Any, dataset: Any) -> Iterator[tuple]:
    """Yield option, config and data set of mmseg's below wrappers."""
    if 'datasets' in settings and hasattr(dataset, 'datasets'):
        for number, part in enumerate(settings['datasets']):
            name = f'{option}.datasets.{number}'
            yield from _leaves(name, part, dataset.datasets[number])
    elif 'dataset' in settings and hasattr(dataset, 'dataset'):
        yield from _leaves(f'{option}.dataset', settings['dataset'], dataset.dataset)
    elif isinstance(dataset, BaseSegDataset):
        yield option, settings, dataset


def check_images(dataset: Any, split: str, cfg: Config) -> None:
    """Load a few images, and refuse values or channels that the config does not fit.

    A damaged image among others is left to the run.

    Raises:
        UserError: names the settings that fit.
    """
    if not isinstance(dataset, BaseSegDataset) or not len(dataset):
        return
    loader, values, failure = image_loader(dataset), SplitValues(), None
    turned = ''
    count = min(len(dataset), _JUDGED)
    for index in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        sample = dataset.get_data_info(index)
        path = sample['img_path']
        try:
            image = loader(sample)['img']
            content = get(path, dataset.backend_args)
            values.add(measure_values(path, image, content))
            turned = turned or (path if is_turned(content) else '')
        except Exception as error:  # every decoder has errors of its own
            failure = failure or error
    if not values.images and isinstance(failure, UserError):
        raise failure
    pipeline = pipeline_of(cfg[f'{split}_dataloader'].dataset)
    faults = []
    for kind, message, level in judge_values(values, pipeline, cfg.model):
        if level == 'fault':
            faults.append(f'{kind}: {message}')
        elif kind != ONE_VALUE:
            print_log(f'{split} data, {kind}: {message}', logger='current', level=30)
    if text := order_warning(loader, cfg.model):
        print_log(f'{split} data: {text}', logger='current', level=30)
    if turned:
        print_log(f'{split} data: {turned}: {TURNED}', logger='current', level=30)
    if faults:
        found = '\n  '.join(faults)
        raise UserError(f'the {split} images do not fit the config:\n  {found}')
