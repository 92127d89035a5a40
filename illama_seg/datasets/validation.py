"""Find errors in the data sets of a config before a training."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from PIL import Image

from illama_seg.datasets.annotations import IGNORED, wrong_label_message
from illama_seg.datasets.decoding import image_loader
from illama_seg.datasets.findings import Finding, Findings
from illama_seg.datasets.inspection import TURNED, CheckedSplit, Facts, inspect_pairs
from illama_seg.datasets.label_checks import (
    check_classes,
    check_twin,
    check_zero_label,
    is_wrong,
    span,
)
from illama_seg.datasets.list_checks import list_pairs
from illama_seg.errors import UserError


def check_splits(
    settings: Mapping[str, dict], workers: int | None = None
) -> tuple[dict[str, CheckedSplit], list[Finding]]:
    """Read every image and annotation; nothing is written.

    Args:
        settings: split -> config of its data set.
        workers: processes; by default as many as there are cores.

    Returns:
        Statistics of each split, and all errors.

    Raises:
        MissingFileError: if a folder of the data is missing.
        UserError: if a data set cannot be listed.
    """
    findings, splits = Findings(), {}
    seen: dict[str, tuple[str, str]] = {}
    for name, setting in settings.items():
        for number, dataset in enumerate(_datasets(setting)):
            classes = dataset.metainfo.get('classes') or ()
            if not number:
                labels = len(dataset.METAINFO.get('classes') or ())
                splits[name] = CheckedSplit(
                    name,
                    classes,
                    dataset.reduce_zero_label,
                    labels if dataset.label_map and labels else len(classes),
                )
            pairs = list_pairs(dataset, name, findings)
            facts = inspect_pairs(
                pairs,
                f'checking {name}',
                workers,
                dataset.backend_args,
                image_loader(dataset),
            )
            _check_split(splits[name], dataset, facts, seen, findings)
    check_zero_label(splits, findings)
    check_classes(splits, findings)
    _check_turned(splits, findings)
    return splits, findings.sorted()


def _check_turned(splits: dict[str, CheckedSplit], findings: Findings) -> None:
    for name, split in splits.items():
        for path in split.turned:
            text = f'{path}: {TURNED}'
            findings.add(name, 'turned by EXIF', text, path, level='warning')


def _datasets(settings: dict) -> Iterator[BaseSegDataset]:
    """Build the data sets of a config without wrappers and without listing files."""
    inner = settings.get('datasets') or [settings.get('dataset')]
    if inner[0] is not None:
        for part in inner:
            yield from _datasets(part)
        return
    dataset = DATASETS.build(dict(settings, lazy_init=True))
    if not isinstance(dataset, BaseSegDataset):
        raise UserError(
            f'{type(dataset).__name__} is no segmentation data set of mmseg '
            '(BaseSegDataset): it cannot be checked here'
        )
    yield dataset


def _label_table(dataset: BaseSegDataset) -> np.ndarray:
    """Return the class number that the pipeline reads for each label, (256,) uint8.

    The pipeline itself reads an image of all labels.
    """
    step: Any = next(
        (
            step
            for step in getattr(dataset.pipeline, 'transforms', ())
            if type(step).__name__.endswith('LoadAnnotations')
        ),
        None,
    )
    if step is None:
        step = TRANSFORMS.build(dict(type='LoadAnnotations'))
    step = copy.copy(step)
    step.backend_args = None
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, 'labels.png'))
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
        try:
            results = step(_sample(dataset, '', path))
        except AssertionError as error:
            raise UserError(
                f'{type(step).__name__} does not fit {type(dataset).__name__}: {error}'
            ) from error
    return results['gt_seg_map'].ravel()


def _sample(dataset: BaseSegDataset, image: str, annotation: str | None) -> dict:
    """Return a sample as the data set passes it to its pipeline."""
    sample: dict = dict(
        img_path=image,
        label_map=dataset.label_map,
        reduce_zero_label=dataset.reduce_zero_label,
        seg_fields=[],
        sample_idx=0,
    )
    return sample if annotation is None else dict(sample, seg_map_path=annotation)


def _check_split(
    split: CheckedSplit,
    dataset: BaseSegDataset,
    all_facts: Iterator[Facts],
    seen: dict[str, tuple[str, str]],
    findings: Findings,
) -> None:
    table, hint = _label_table(dataset), getattr(dataset, 'LABELS', '')
    for facts in all_facts:
        faults = list(facts.faults)
        wrong = [n for n in facts.labels if is_wrong(n, table, len(split.classes))]
        if wrong:
            label = max(wrong)
            message = wrong_label_message(
                str(facts.annotation),
                label,
                facts.labels[label],
                split.num_labels,
                split.reduce_zero_label,
            )
            faults.append(('label out of range', message))
        split.labels.update(facts.labels)
        split.wrong.update(wrong)
        trained: Counter[int] = Counter()
        for label, count in facts.labels.items():
            if label not in wrong:
                trained[int(table[label])] += count
        split.pixels.update(trained)
        split.images.update(trained.keys())
        if facts.size:
            split.sizes[facts.size] += 1
        if facts.values is not None:
            split.values.add(facts.values)
        if facts.orientation != 1 and (
            facts.orientation < 5 or (facts.size and facts.size[0] == facts.size[1])
        ):
            split.turned.append(facts.image)
        for kind, message in faults:
            if hint and kind in ('label out of range', 'not class numbers'):
                message += f'. {hint}'
            findings.add(split.name, kind, message, facts.image)
        if facts.labels and set(trained) == {IGNORED} and not wrong:
            text = (
                f'{facts.annotation}: all of its pixels are ignored, nothing is learnt '
                f'from it (labels in the file: {span(facts.labels)})'
            )
            findings.add(
                split.name, 'nothing annotated', text, facts.image, level='warning'
            )
        check_twin(facts, split.name, seen, findings)
        if not faults and facts.labels:
            sample = _sample(dataset, facts.image, facts.annotation)
            split.sound.append((dataset, sample))
