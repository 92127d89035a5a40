"""Check the data sets of a config, and show what their pipelines make of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from illama_seg.apis.user_errors import (
    check_segmentation,
    check_writable,
    options_explained,
)
from illama_seg.datasets.inspection import Finding, class_table
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.datasets.validation import CheckedSplit, check_splits
from illama_seg.errors import UserError
from illama_seg.visualization.overlays import side_by_side
from illama_seg.visualization.sheets import draw_sheet

_PER_ROW = 3
_EXTREMES = ('smallest', 'largest')


def check_dataset(
    cfg: Config,
    out: str | Path | None = None,
    num_images: int = 12,
    workers: int | None = None,
    seed: int = 0,
) -> tuple[dict, str]:
    """Read all images and annotations of a config's train and val data.

    Writes ``report.json`` and ``contact_sheet.png`` (samples as the training pipeline
    hands them to the model) into ``out``; the data are only read.

    Args:
        cfg: config of :func:`illama_seg.apis.load_config`.
        out: folder to write to; by default ``data_check`` in the work dir.
        num_images: on the contact sheet; 0 for none.
        workers: processes; by default as many as there are cores.
        seed: of the augmentation on the contact sheet.

    Returns:
        ``splits`` (numbers of each), ``findings`` (kind, split, level, messages and
        files of each) and ``faults`` (their number without the warnings); and all of
        it as text.

    Raises:
        FileNotFoundError: if a folder of the data is missing.
        ValueError: if the config is of no segmentation, or cannot be used.
    """
    if num_images < 0:
        raise UserError(f'--num-images {num_images}: expected at least 0')
    check_segmentation(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    settings = {
        split: cfg[f'{split}_dataloader'].dataset
        for split in ('train', 'val')
        if cfg.get(f'{split}_dataloader')
    }
    folder = Path(out or Path(cfg.work_dir, 'data_check'))
    check_writable(folder)
    with options_explained(cfg):
        splits, findings = check_splits(settings, _heads(cfg), workers)
    if num_images and 'train' in splits and splits['train'].sound:
        try:
            _draw_contact_sheet(cfg, splits['train'], num_images, seed, folder)
        except Exception as error:  # a pipeline may raise anything
            message = f'{type(error).__name__}: {error}'
            findings.insert(0, Finding('pipeline fails', 'train', [message]))
    report = dict(
        config=str(cfg.filename),
        splits={name: split.summary() for name, split in splits.items()},
        findings=[vars(finding) for finding in findings],
        faults=sum(finding.level == 'fault' for finding in findings),
    )
    (folder / 'report.json').write_text(json.dumps(report, indent=1))
    return report, '\n'.join([*_unchecked(cfg), _text(report, findings, folder)])


def browse_dataset(
    cfg: Config,
    split: str = 'train',
    out: str | Path | None = None,
    num_images: int = 4,
    draws: int = 3,
    seed: int = 0,
) -> Path:
    """Draw samples of a data set beside what the augmentation makes of them.

    Args:
        cfg: config of :func:`illama_seg.apis.load_config`.
        split: 'train', 'val' or 'test'.
        out: picture to write; by default ``browse_SPLIT.png`` in the work dir.
        num_images: rows of the picture, spread over the data set.
        draws: times that each is augmented.
        seed: of the augmentation.

    Returns:
        Path of the picture.

    Raises:
        FileNotFoundError: if a folder or file of the data is missing.
        ValueError: if an option cannot be used, or a file cannot be read.
    """
    for option, value in (('--num-images', num_images), ('--draws', draws)):
        if value < 1:
            raise UserError(f'{option} {value}: expected at least 1')
    check_segmentation(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    picture = Path(out or Path(cfg.work_dir, f'browse_{split}.png'))
    check_writable(picture.parent)
    with options_explained(cfg):
        plain = LabelledImages(cfg, split)
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    palette, classes = dataset.metainfo['palette'], dataset.metainfo['classes']
    size = _padded_size(cfg) if split == 'train' else (0, 0)
    rows, present = [], set()
    with _seeded(seed):
        for index in _spread(len(dataset), num_images):
            image, labels, path = plain[index]
            samples = [(image, labels, f'{Path(path).name}, {_size(image)}')]
            for _ in range(draws):
                image, labels = _as_model_gets_it(dataset[index], size)
                samples.append((image, labels, _describe(image, labels)))
            present |= {n for _, labels, _ in samples for n in np.unique(labels)}
            rows.append(
                [(side_by_side(i, label, palette), text) for i, label, text in samples]
            )
    name = Path(cfg.filename).name
    title = f'{name}, {split}: the file, and what the pipeline makes of it'
    draw_sheet(rows, _legend(present, classes, palette), picture, title)
    return picture


def _heads(cfg: Config) -> dict[str, int]:
    """``num_classes`` of each head, by the option that sets it."""
    found = {}
    for name in ('decode_head', 'auxiliary_head'):
        heads = cfg.model.get(name) or []
        single = not isinstance(heads, list)
        for number, head in enumerate([heads] if single else heads):
            option = f'model.{name}' + ('' if single else f'.{number}')
            if 'num_classes' in head:
                found[f'{option}.num_classes'] = head['num_classes']
    return found


def _unchecked(cfg: Config) -> list[str]:
    """A line on test data that are not those of the validation."""
    test = (cfg.get('test_dataloader') or {}).get('dataset')
    val = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    where = ('type', 'data_root', 'data_prefix', 'ann_file')
    if not test or all(test.get(key) == val.get(key) for key in where):
        return []
    return ['test_dataloader has data of its own: not checked']


def _spread(total: int, wanted: int) -> list[int]:
    """So many different numbers, evenly over range(total)."""
    return np.linspace(0, total - 1, min(wanted, total)).round().astype(int).tolist()


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same augmentation each time, without a trace on other random numbers."""
    states = np.random.get_state(), random.getstate()
    np.random.seed(seed)
    random.seed(seed)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _padded_size(cfg: Config) -> tuple[int, int]:
    """Height and width that smaller training samples are padded to."""
    return (cfg.model.get('data_preprocessor') or {}).get('size') or (0, 0)


def _as_model_gets_it(
    sample: dict, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 BGR and labels (H, W) of what a pipeline gave, padded."""
    if 'inputs' in sample:
        image = sample['inputs'].numpy().transpose(1, 2, 0)
        labels = sample['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
    else:
        image, labels = sample['img'], sample['gt_seg_map']
    if image.dtype != np.uint8:  # normalised by the pipeline
        image = image - image.min()
        image = (255 * image / max(image.max(), 1e-6)).astype(np.uint8)
    if image.shape[:2] != labels.shape:  # resized without its annotation, for testing
        labels = cv2.resize(
            labels.astype(np.uint8),
            image.shape[1::-1],
            interpolation=cv2.INTER_NEAREST,
        )
    below, right = (max(size[i] - image.shape[i], 0) for i in (0, 1))
    image = np.pad(image, ((0, below), (0, right), (0, 0)))
    labels = np.pad(labels, ((0, below), (0, right)), constant_values=255)
    return np.ascontiguousarray(image), labels.astype(np.uint8)


def _size(image: np.ndarray) -> str:
    return f'{image.shape[0]}x{image.shape[1]}'


def _describe(image: np.ndarray, labels: np.ndarray) -> str:
    return f'{_size(image)}, {100 * (labels == 255).mean():.0f} % ignored'


def _legend(
    present: set[int], classes: Any, palette: Any
) -> list[tuple[str, tuple[int, ...]]]:
    known = sorted(n for n in present if n < len(classes))
    entries = [(classes[n].strip(), tuple(palette[n])) for n in known]
    return [*entries, ('ignored', (0, 0, 0))] if 255 in present else entries


def _draw_contact_sheet(
    cfg: Config, split: CheckedSplit, num_images: int, seed: int, folder: Path
) -> None:
    cells, present = [], set()
    palette = split.sound[0][0].metainfo['palette']
    with _seeded(seed):
        for index in _spread(len(split.sound), num_images):
            dataset, sample = split.sound[index]
            image, labels = _as_model_gets_it(
                dataset.pipeline(dict(sample)), _padded_size(cfg)
            )
            present |= set(np.unique(labels).tolist())
            caption = f'{Path(sample["img_path"]).name}: {_describe(image, labels)}'
            cells.append((side_by_side(image, labels, palette), caption))
    rows = [cells[i : i + _PER_ROW] for i in range(0, len(cells), _PER_ROW)]
    title = f'{Path(cfg.filename).name}: what the training pipeline hands to the model'
    legend = _legend(present, split.classes, palette)
    draw_sheet(rows, legend, folder / 'contact_sheet.png', title)


def _text(report: dict, findings: list[Finding], folder: Path) -> str:
    columns, lines = {}, []
    for split, found in report['splits'].items():
        columns[split] = {
            name: (row['share'], row['images'])
            for name, row in found['classes'].items()
            if row['images']
        }
        if found['images']:
            small, large = ('x'.join(map(str, found[k])) for k in _EXTREMES)
            lines.append(
                f'{split}: {found["images"]:,} images, {small} to {large}, '
                f'{100 * found["ignored"]:.1f} % of the pixels ignored'
            )
    present = dict.fromkeys(name for column in columns.values() for name in column)
    faults, files = report['faults'], sorted(file.name for file in folder.iterdir())
    return '\n'.join(
        [
            class_table(present, columns),
            *lines,
            *map(str, findings),
            f'faults: {faults}, warnings: {len(findings) - faults}; see {folder}: '
            f'{", ".join(files)}',
        ]
    )
