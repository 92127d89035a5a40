"""Check of a config's data sets, and drawings of what their pipelines make."""

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

from illama_seg.apis.consistency import contradictions
from illama_seg.apis.dataset_checks import check_class_names
from illama_seg.apis.user_errors import (
    check_segmentation,
    check_writable,
    options_explained,
)
from illama_seg.datasets.decoding import as_picture, image_loader, loads_bgr
from illama_seg.datasets.findings import Finding, Findings, class_table
from illama_seg.datasets.inspection import CheckedSplit
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.datasets.validation import check_splits
from illama_seg.datasets.value_checks import judge_values, order_warning
from illama_seg.datasets.values import pipeline_of
from illama_seg.files import write_whole
from illama_seg.studies.common import check_at_least, spread
from illama_seg.visualization.overlays import side_by_side
from illama_seg.visualization.sheets import class_entries, draw_sheet

_PER_ROW = 3
_EXTREMES = ('smallest', 'largest')
_Sample = tuple[np.ndarray, np.ndarray, str]  # image, labels, caption


def check_dataset(
    cfg: Config,
    out: str | Path | None = None,
    *,
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
        num_images: number of images on the contact sheet; 0 draws none.
        workers: number of processes; by default one for each core.
        seed: seed of the augmentation on the contact sheet.

    Returns:
        ``splits`` (statistics of each), ``findings`` (kind, split, level, messages and
        files of each) and ``faults`` (number of findings that are no warnings); and
        the same as text.

    Raises:
        MissingFileError: if a folder of the data is missing.
        UserError: if the config has no segmentor, or cannot be used.
    """
    check_at_least(0, num_images=num_images)
    check_segmentation(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    settings = {
        split: cfg[f'{split}_dataloader'].dataset
        for split in ('train', 'val')
        if cfg.get(f'{split}_dataloader')
    }
    for split, setting in settings.items():
        check_class_names(setting, f'{split}_dataloader.dataset')
    folder = Path(out or Path(cfg.work_dir, 'data_check'))
    check_writable(folder)
    with options_explained(cfg):
        splits, findings = check_splits(settings, workers)
    classes = {name: split.classes for name, split in splits.items()}
    for text in contradictions(cfg, classes):
        findings.insert(0, Finding('contradiction', 'config', [text]))
    findings += _value_findings(cfg, splits)
    findings.sort(key=lambda found: found.level != 'fault')
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
    write_whole(folder / 'report.json', json.dumps(report, indent=1))
    return report, '\n'.join([*_unchecked(cfg), _text(report, findings, folder)])


def _value_findings(cfg: Config, splits: dict[str, CheckedSplit]) -> list[Finding]:
    findings = Findings()
    for name, split in splits.items():
        pipeline = pipeline_of(cfg[f'{name}_dataloader'].dataset)
        for kind, message, level in judge_values(split.values, pipeline, cfg.model):
            findings.add(name, kind, message, level=level)
        for loader in [image_loader(split.sound[0][0])] if split.sound else ():
            if text := order_warning(loader, cfg.model):
                findings.add(name, 'order of the bands', text, level='warning')
    return findings.sorted()


def browse_dataset(
    cfg: Config,
    split: str = 'train',
    *,
    out: str | Path | None = None,
    num_images: int = 4,
    draws: int = 3,
    seed: int = 0,
) -> Path:
    """Draw samples of a data set beside their augmented versions.

    Args:
        cfg: config of :func:`illama_seg.apis.load_config`.
        split: 'train', 'val' or 'test'.
        out: image to write; by default ``browse_SPLIT.png`` in the work dir.
        num_images: number of rows, spread over the data set.
        draws: number of augmented versions of each sample.
        seed: seed of the augmentation.

    Returns:
        Path of the image.

    Raises:
        MissingFileError: if a folder or file of the data is missing.
        UserError: if a parameter cannot be used, or a file cannot be read.
    """
    check_at_least(1, num_images=num_images, draws=draws)
    check_segmentation(cfg)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    path = Path(out or Path(cfg.work_dir, f'browse_{split}.png'))
    check_writable(path.parent)
    with options_explained(cfg):
        plain = LabelledImages(cfg, split)
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        loader = image_loader(dataset)
    size = _padded_size(cfg) if split == 'train' else (0, 0)
    rows = []
    with _seeded(seed):
        for index in spread(len(dataset), num_images):
            image, labels, file = plain[index]
            picture = plain.picture(image)
            samples = [(picture, labels, f'{Path(file).name}, {_size(image)}')]
            for _ in range(draws):
                image, labels = _model_input(dataset[index], size, loader)
                samples.append((image, labels, _describe(image, labels)))
            rows.append(samples)
    name = Path(cfg.filename).name
    title = f'{name}, {split}: the file, and samples that the pipeline makes from it'
    _draw(rows, dataset.metainfo, path, title)
    return path


def _unchecked(cfg: Config) -> list[str]:
    """Return a note where the test data are not the validation data."""
    test = (cfg.get('test_dataloader') or {}).get('dataset')
    val = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    where = ('type', 'data_root', 'data_prefix', 'ann_file')
    if not test or all(test.get(key) == val.get(key) for key in where):
        return []
    return ['test_dataloader has data of its own: not checked']


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Repeat the same augmentation; the caller's random numbers do not change."""
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
    """Return (height, width) that smaller training samples are padded to."""
    return (cfg.model.get('data_preprocessor') or {}).get('size') or (0, 0)


def _model_input(
    sample: dict, size: tuple[int, int], loader: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return a sample's padded picture (H, W, 3) uint8 BGR and labels (H, W) uint8."""
    if 'inputs' in sample:
        image = sample['inputs'].numpy().transpose(1, 2, 0)
        labels = sample['data_samples'].gt_sem_seg.data.squeeze(0).numpy()
    else:
        image, labels = sample['img'], sample['gt_seg_map']
    image = as_picture(image, loads_bgr(loader))
    if image.shape[:2] != labels.shape:  # a test pipeline resizes the image only
        labels = cv2.resize(
            labels.astype(np.uint8), image.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
    below, right = (max(size[i] - image.shape[i], 0) for i in (0, 1))
    image = np.pad(image, ((0, below), (0, right), (0, 0)))
    labels = np.pad(labels, ((0, below), (0, right)), constant_values=255)
    return np.ascontiguousarray(image), labels.astype(np.uint8)


def _size(image: np.ndarray) -> str:
    return f'{image.shape[0]}x{image.shape[1]}'


def _describe(image: np.ndarray, labels: np.ndarray) -> str:
    return f'{_size(image)}, {100 * (labels == 255).mean():.0f} % ignored'


def _draw(rows: list[list[_Sample]], meta: dict, path: Path, title: str) -> None:
    """Draw images beside their labels, with a legend of the classes present."""
    classes, palette = meta['classes'], meta['palette']
    cells = [
        [(side_by_side(image, labels, palette), text) for image, labels, text in row]
        for row in rows
    ]
    present = {n for row in rows for _, labels, _ in row for n in np.unique(labels)}
    ignored = [('ignored', (0, 0, 0))] if 255 in present else []
    entries = class_entries(present, classes, palette) + ignored
    draw_sheet(cells, entries, path, title)


def _draw_contact_sheet(
    cfg: Config, split: CheckedSplit, num_images: int, seed: int, folder: Path
) -> None:
    cells = []
    with _seeded(seed):
        for index in spread(len(split.sound), num_images):
            dataset, sample = split.sound[index]
            image, labels = _model_input(
                dataset.pipeline(dict(sample)),
                _padded_size(cfg),
                image_loader(dataset),
            )
            caption = f'{Path(sample["img_path"]).name}: {_describe(image, labels)}'
            cells.append((image, labels, caption))
    rows = [cells[i : i + _PER_ROW] for i in range(0, len(cells), _PER_ROW)]
    title = f'{Path(cfg.filename).name}: input of the model, by the training pipeline'
    meta = dict(split.sound[0][0].metainfo, classes=split.classes)
    _draw(rows, meta, folder / 'contact_sheet.png', title)


def _text(report: dict, findings: list[Finding], folder: Path) -> str:
    columns, lines = {}, []
    for split, statistics in report['splits'].items():
        columns[split] = {
            name: (row['share'], row['images'])
            for name, row in statistics['classes'].items()
            if row['images']
        }
        if statistics['images']:
            small, large = ('x'.join(map(str, statistics[k])) for k in _EXTREMES)
            lines.append(
                f'{split}: {statistics["images"]:,} images, {small} to {large}, '
                f'{100 * statistics["ignored"]:.1f} % of the pixels ignored'
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
