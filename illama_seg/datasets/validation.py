"""Find errors in the data sets of a config before a training."""

from __future__ import annotations

import copy
import os.path as osp
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS, TRANSFORMS
from mmseg.datasets import BaseSegDataset
from PIL import Image

from illama_seg.datasets.annotations import IGNORED, wrong_label_message
from illama_seg.datasets.inspection import Facts, Finding, Findings, inspect_pairs
from illama_seg.datasets.segmentation import annotation_of, list_files
from illama_seg.errors import UserError

_NAMED = 12  # classes listed in a message


@dataclass
class CheckedSplit:
    """Statistics of one split of the data.

    Attributes:
        name: 'train' or 'val'.
        classes: names of the classes.
        reduce_zero_label: label 0 in the files is ignored, 1 is the first class.
        num_labels: number of labels that are classes in the files.
        labels: label in the files -> number of its pixels.
        pixels: class number for the model, or 255 (ignored) -> number of its pixels.
        images: class number -> number of images that have it.
        sizes: (height, width) -> number of images.
        wrong: labels that no class has.
        sound: (data set, sample before its pipeline) of each pair without an error.
    """

    name: str
    classes: Sequence[str]
    reduce_zero_label: bool
    num_labels: int
    labels: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    wrong: set[int] = field(default_factory=set)
    sound: list[tuple[BaseSegDataset, dict]] = field(default_factory=list)

    def summary(self) -> dict:
        """Return the numbers for a JSON file; shares are of all pixels, 0 to 1."""
        total = max(sum(self.pixels.values()), 1)
        area = sorted(self.sizes, key=np.prod)
        return dict(
            images=sum(self.sizes.values()),
            smallest=area[0] if area else None,
            largest=area[-1] if area else None,
            ignored=self.pixels[IGNORED] / total,
            classes={
                name: dict(share=self.pixels[n] / total, images=self.images[n])
                for n, name in enumerate(self.classes)
            },
            labels={str(n): self.labels[n] for n in sorted(self.labels)},
        )


def check_splits(
    settings: Mapping[str, dict],
    heads: Mapping[str, int],
    workers: int | None = None,
) -> tuple[dict[str, CheckedSplit], list[Finding]]:
    """Read every image and annotation; nothing is written.

    Args:
        settings: split -> config of its data set.
        heads: key of the config -> ``num_classes`` of a head.
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
            pairs = _list_pairs(dataset, name, findings)
            facts = inspect_pairs(
                pairs, f'checking {name}', workers, dataset.backend_args
            )
            _check_split(splits[name], dataset, facts, seen, findings)
    for option, count in heads.items():
        for name, split in splits.items():
            if count != len(split.classes):
                findings.add(
                    name,
                    'number of classes',
                    f'{option}={count}, but the data set names {len(split.classes)} '
                    f'classes: set {option}={len(split.classes)}',
                )
    _check_zero_label(splits, findings)
    _check_classes(splits, findings)
    return splits, findings.sorted()


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


def _list_pairs(
    dataset: BaseSegDataset, split: str, findings: Findings
) -> list[tuple[str, str | None]]:
    """List image and annotation of each sample; report those without a partner."""
    if dataset.ann_file:
        samples = dataset.load_data_list()
        return [(s['img_path'], s.get('seg_map_path')) for s in samples]
    img_dir = dataset.data_prefix['img_path']
    ann_dir = dataset.data_prefix.get('seg_map_path')
    suffixes = dataset.img_suffix
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    images = list_files(dataset, img_dir, suffixes)
    if not images:
        findings.add(
            split,
            'no image',
            f'{img_dir} has no file ending in {" or ".join(suffixes)}: set data_root, '
            'data_prefix or img_suffix of the data set',
        )
    if not ann_dir:
        text = (
            f'no folder of annotations beside {img_dir}: set data_prefix.seg_map_path'
        )
        findings.add(split, 'no annotations', text)
        return [(osp.join(img_dir, image), None) for image in images]
    there = set(list_files(dataset, ann_dir, dataset.seg_map_suffix))
    pairs: list[tuple[str, str | None]] = []
    for image in images:
        annotation = annotation_of(image, suffixes, dataset.seg_map_suffix)
        path, partner = osp.join(img_dir, image), osp.join(ann_dir, annotation)
        pairs.append((path, partner if annotation in there else None))
        if annotation not in there:
            text = f'{path}: expected {partner}. Add it, or remove the image'
            findings.add(split, 'image without annotation', text, path)
        there.discard(annotation)
    for annotation in sorted(there):
        path = osp.join(ann_dir, annotation)
        text = (
            f'{path}: expected its image in {img_dir}, ending in '
            f'{" or ".join(suffixes)}. It is not learnt from: add the image, or remove '
            'the annotation'
        )
        findings.add(split, 'annotation without image', text, path)
    return pairs


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
    table = _label_table(dataset)
    for facts in all_facts:
        faults = list(facts.faults)
        wrong = [n for n in facts.labels if _is_wrong(n, table, len(split.classes))]
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
        for kind, message in faults:
            findings.add(split.name, kind, message, facts.image)
        if facts.labels and set(trained) == {IGNORED} and not wrong:
            text = (
                f'{facts.annotation}: all of its pixels are ignored, nothing is learnt '
                f'from it (labels in the file: {_range(facts.labels)})'
            )
            findings.add(
                split.name, 'nothing annotated', text, facts.image, level='warning'
            )
        _check_twin(facts, split.name, seen, findings)
        if not faults and facts.labels:
            sample = _sample(dataset, facts.image, facts.annotation)
            split.sound.append((dataset, sample))


def _is_wrong(label: int, table: np.ndarray, num_classes: int) -> bool:
    if not 0 <= label <= 255:
        return True
    return table[label] != IGNORED and table[label] >= num_classes


def _check_twin(
    facts: Facts, split: str, seen: dict[str, tuple[str, str]], findings: Findings
) -> None:
    if not facts.digest:
        return
    other, path = seen.setdefault(facts.digest, (split, facts.image))
    if path == facts.image and other == split:
        return
    text = f'{facts.image} is {path}, byte for byte'
    if other != split:
        text += f': it is scored on what was learnt. Remove it from {other} or {split}'
        findings.add(
            f'{other} and {split}', 'the same image in both', text, facts.image
        )
    else:
        findings.add(split, 'the same image twice', text, facts.image, level='warning')


def _check_zero_label(splits: dict[str, CheckedSplit], findings: Findings) -> None:
    """Check ``reduce_zero_label`` against the labels of all splits together."""
    groups: dict[bool, list[CheckedSplit]] = {}
    for split in splits.values():
        groups.setdefault(split.reduce_zero_label, []).append(split)
    if len(groups) > 1:
        text = ', '.join(
            f'{s.name}_dataloader.dataset.reduce_zero_label={s.reduce_zero_label}'
            for s in splits.values()
        )
        name = ' and '.join(splits)
        findings.add(name, 'reduce_zero_label', f'{text}: expected the same of each')
    for members in groups.values():
        name = ' and '.join(split.name for split in members)
        labels = sum((split.labels for split in members), Counter())
        labels.pop(IGNORED, None)
        if labels and members[0].classes:
            wrong = set().union(*(split.wrong for split in members))
            _ask_zero_label(name, members[0], labels, wrong, findings)


def _ask_zero_label(
    name: str,
    split: CheckedSplit,
    labels: Counter[int],
    wrong: set[int],
    findings: Findings,
) -> None:
    reduced = split.reduce_zero_label
    last, first = split.num_labels, split.classes[0].strip()

    def share(label: int) -> str:
        return f'{100 * labels[label] / labels.total():.2g} % of the pixels'

    zero = share(0)
    cure = f'reduce_zero_label={not reduced}'
    cure = ' '.join(
        f'{part}_dataloader.dataset.{cure}' for part in ('train', 'val', 'test')
    )
    if not reduced and max(wrong, default=0) == last:
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {_range(labels)}, with {last} classes, which are 0..'
            f'{last - 1}. Either they count from 1, and 0 ({zero}) is none of them: '
            f'with reduce_zero_label=False 0 is learnt as {first!r} and each class as '
            f'the next one; set {cure}. Or {last} ({share(last)}) means not annotated, '
            'or is a mistake: write 255 for it. Look at an annotation to tell',
        )
    elif not reduced and 0 not in labels and split.num_labels == len(split.classes):
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {_range(labels)}: no pixel is 0, {first!r}. If they count '
            f'from 1, set {cure}',
            level='warning',
        )
    elif reduced and 0 in labels and last not in labels:
        lacking = sum(n not in labels for n in range(1, last))
        if lacking > last // 2:  # too few classes occur to tell
            return
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {_range(labels)}, with {last} classes: they seem to count '
            f'from 0. With reduce_zero_label=True label 0 ({zero}) is ignored, '
            f'{first!r} is learnt from label 1 and the last class never. If 0 is a '
            f'class, set {cure}. If 0 means not annotated, and {last} only happens '
            'to be absent, all is well',
            level='warning' if lacking else 'fault',
        )


def _range(labels: Mapping[int, int]) -> str:
    known = sorted(n for n in labels if n != IGNORED)
    if not known:
        return 'only 255'
    complete = len(known) == known[-1] - known[0] + 1
    shown = f'{known[0]}..{known[-1]}' if len(known) > 1 else f'{known[0]}'
    return shown if complete else f'{shown} ({len(known)} of them)'


def _check_classes(splits: dict[str, CheckedSplit], findings: Findings) -> None:
    train, others = splits.get('train'), [s for n, s in splits.items() if n != 'train']
    for split in splits.values():
        lacking = {n for n in range(len(split.classes)) if not split.images[n]}
        tested = {n for n in lacking if any(other.images[n] for other in others)}
        if split is train and tested:
            findings.add(
                split.name,
                'class never seen',
                f'{_names(split, tested)}: in no annotation of train, but in val, '
                'where it is scored. Add images of it, or leave the class out of '
                'metainfo',
            )
        if rest := lacking - (tested if split is train else set()):
            effect = 'cannot be learnt' if split is train else 'is not scored'
            findings.add(
                split.name,
                'class absent',
                f'{_names(split, rest)}: in no annotation of {split.name}; it {effect}',
                level='warning',
            )


def _names(split: CheckedSplit, numbers: set[int]) -> str:
    names = [f'{split.classes[n].strip()} ({n})' for n in sorted(numbers)]
    more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more
