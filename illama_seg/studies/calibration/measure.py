"""Calibration of classifiers and segmentors, before and after temperature scaling."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from prettytable import PrettyTable
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import logit_blocks
from illama_seg.apis.user_errors import check_seed, check_writable, options_explained
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.calibration.counts import CalibrationCounts, fit_temperature
from illama_seg.studies.calibration.draw import draw_calibration
from illama_seg.studies.subjects import Classifier, build_classifier, source_name

FILES = ('calibration.json', 'calibration.png', 'calibration_per_class.csv')
# Samples that a temperature is fitted to, at most about as many: pixels are many.
FITTED = 200_000
NOTES = dict(
    samples='images, or labelled pixels of a segmentation',
    all='all images, as the model is',
    before='the images that were not held out, as the model is',
    after='the same images, logits divided by the temperature fitted to those held out',
    per_class='what is predicted as the class',
)

# Logits (N, num_classes), labels (N,), and how many samples the image has.
Part = tuple[Tensor, Tensor, int]


def measure_calibration(
    config: str | Path,
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    beside: Sequence[str | Path] = (),
    num_bins: int = 15,
    held_out: float = 0.5,
    seed: int = 0,
    batch_size: int | None = None,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Measure models on a config's test data, and write the files ``FILES``.

    A temperature is fitted to a part of the images, drawn once for all models, and
    judged on the others.

    Args:
        config: config of a classification or segmentation, or its name.
        sources: checkpoints of this config; for a classification also timm's models,
            see :func:`illama_seg.studies.build_classifier`.
        out: folder to write to; by default ``calibration`` in the config's work dir.
        beside: calibration.json of earlier calls, whose models are shown beside these.
        num_bins: bins of confidence.
        held_out: share of the images to fit the temperature to.
        seed: of the draw.
        batch_size: images at once; of a segmentation, windows.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        What is in calibration.json, and a readable table.

    Raises:
        FileNotFoundError: if a file is missing.
        ConnectionError: if weights cannot be downloaded.
        ValueError: if an option is out of its range, a model or the data do not fit.
    """
    if (
        num_bins < 1
        or not 0 < held_out < 1
        or (batch_size is not None and batch_size < 1)
    ):
        raise UserError(
            f'--bins {num_bins} --held-out {held_out} --batch-size {batch_size}: '
            'expected bins and a batch of at least 1, and a share between 0 and 1'
        )
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    earlier = [model for path in beside for model in _read(path)]
    folder = Path(out or Path(cfg.work_dir) / 'calibration')
    check_writable(folder)
    results = []
    for source in sources:
        segments = 'decode_head' in cfg.model
        make = _pixels_of if segments else _images_of
        classes, length, parts = make(cfg.copy(), source, batch_size, device)
        order = np.random.default_rng(seed).permutation(length).tolist()
        count = min(max(round(held_out * length), 1), length - 1)
        if count < 1:
            raise UserError(
                f'{length} image in the test data of {cfg.filename}: expected at least '
                '2, one to hold out and one to judge by'
            )
        # Of a classification every number is a class.
        empty = CalibrationCounts(classes, num_bins, 255 if segments else -1)
        result = _measure(parts, empty, order[:count], order[count:])
        results.append(
            dict(
                name=source_name(source),
                source=str(source),
                config=str(config),
                kind='segmentation' if segments else 'classification',
                data=cfg.test_dataloader.dataset.type,
                seed=seed,
                **result,
            )
        )
        # Each time: a model that fails does not cost those before it.
        numbers = _write(folder, results, earlier)
    return numbers, _table(numbers['models'])


def _measure(
    parts: Any, empty: CalibrationCounts, held_out: list[int], judged: list[int]
) -> dict:
    """Stream the images held out, fit the temperature, stream the others."""
    counts = {kind: copy.deepcopy(empty) for kind in ('all', 'before', 'after')}
    generator = torch.Generator().manual_seed(0)
    kept: list[tuple[Tensor, Tensor]] = []
    for logits, labels, samples in parts(held_out):
        counts['all'].update(logits, labels)
        share = FITTED / len(held_out) / samples
        take = torch.rand(len(labels), generator=generator) < share
        take &= labels != empty.ignore_index
        kept.append((logits[take], labels[take]))
    logits, labels = (torch.cat(column) for column in zip(*kept, strict=True))
    temperature = fit_temperature(logits, labels)
    if not 0.02 < temperature < 50:
        print_log(
            f'the temperature fitted is {temperature:.3g}, an end of the range: the '
            f'{len(labels)} samples held out do not determine it',
            logger='current',
            level=30,
        )
    for logits, labels, _ in parts(judged):
        counts['all'].update(logits, labels)
        counts['before'].update(logits, labels)
        counts['after'].update(logits, labels, temperature)
    return dict(
        images=len(held_out) + len(judged),
        held_out=len(held_out),
        bins=empty.num_bins,
        temperature=temperature,
        **{
            kind: dict(count.summary(), diagram=count.diagram())
            for kind, count in counts.items()
        },
        per_class=counts['all'].per_class(),
    )


# Classification


class _Loaded(Dataset):
    """Images of a data set by a classifier's own preprocessing, and their labels."""

    def __init__(self, data: Any, indices: list[int], classifier: Classifier) -> None:
        self.data, self.indices, self.load = data, indices, classifier.load

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        info = self.data.get_data_info(self.indices[place])
        return self.load(info), int(info['gt_label'])


def _images_of(
    cfg: Config, source: str | Path, batch_size: int | None, device: str | None
) -> tuple[tuple[str, ...], int, Any]:
    """Names of the classes, number of images, and what yields their parts."""
    classifier = build_classifier(cfg, source, device)
    loader = cfg.test_dataloader
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with options_explained(cfg):
        data = DATASETS.build(dict(loader.dataset, pipeline=[]))
    classes = tuple(data.metainfo['classes'])
    if len(classes) != classifier.num_classes:
        raise UserError(
            f'{classifier.name} has {classifier.num_classes} classes, the test data '
            f'of {cfg.filename} {len(classes)}: expected the same'
        )
    parts = partial(
        _image_parts, data, classifier, batch_size or loader.batch_size, loader
    )
    return classes, len(data), parts


def _image_parts(
    data: Any, classifier: Classifier, batch_size: int, loader: Any, indices: list[int]
) -> Iterator[Part]:
    batches = DataLoader(
        _Loaded(data, indices, classifier),
        batch_size,
        num_workers=loader.num_workers,
        collate_fn=_as_lists,
    )
    for images, labels in tqdm(batches, desc=classifier.name, unit='batch'):
        yield classifier.logits(images), torch.tensor(labels), 1


def _as_lists(batch: list[tuple[Tensor, int]]) -> tuple[list[Tensor], list[int]]:
    images, labels = zip(*batch, strict=True)
    return list(images), list(labels)


# Segmentation


def _pixels_of(
    cfg: Config, source: str | Path, batch_size: int | None, device: str | None
) -> tuple[tuple[str, ...], int, Any]:
    """As ``_images_of``; the parts are blocks of pixels."""
    model = load_segmentor(cfg, source, device)
    classes = tuple(dataset_meta(model)['classes'])
    if (channels := cast(Any, model).out_channels) != len(classes):
        raise UserError(
            f'{source} has {channels} logits for {len(classes)} classes: expected one '
            'for each class'
        )
    data = LabelledImages(cfg, 'test')
    return classes, len(data), partial(_pixel_parts, data, model, batch_size or 1)


def _pixel_parts(
    data: LabelledImages, model: nn.Module, batch_size: int, indices: list[int]
) -> Iterator[Part]:
    for index in tqdm(indices, desc='segmenting', unit='image'):
        image, label, _ = data[index]
        truth = torch.from_numpy(label.astype(np.int64))
        for rows, columns, logits in logit_blocks(model, image, batch_size):
            flat = logits.flatten(1).T.float().cpu()
            yield flat, truth[rows, columns].flatten(), truth.numel()


# Files


def _write(folder: Path, results: list[dict], earlier: list[dict]) -> dict:
    models = [*results, *earlier]
    numbers = dict(
        models=models,
        notes=NOTES,
        precision='float32',
        versions=dict(torch=torch.__version__, timm=timm.__version__),
    )
    (folder / 'calibration.json').write_text(json.dumps(numbers, indent=1))
    _write_classes(folder / 'calibration_per_class.csv', results)
    draw_calibration(models, folder / 'calibration.png')
    return numbers


def _read(path: str | Path) -> list[dict]:
    try:
        models = json.loads(Path(path).read_text())['models']
        for model in models:
            model['name'], model['before']['diagram'], model['after']['diagram']
        _table(models)  # what it lacks is met now, not after the measuring
        return models
    except FileNotFoundError as error:
        raise MissingFileError(f'--beside: no file {path}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'--beside {path}: expected a calibration.json of this tool '
            f'({type(error).__name__}: {error})'
        ) from error


def _write_classes(path: Path, results: list[dict]) -> None:
    with path.open('w', newline='') as file:
        names = ['model', 'class', 'samples', 'confidence', 'accuracy', 'ece']
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for result in results:
            for row in result['per_class']:
                writer.writerow(dict(row, model=result['name']))


def _table(models: Sequence[dict]) -> str:
    figures = ('accuracy', 'confidence', 'ece', 'adaptive_ece', 'mce', 'nll', 'brier')
    table = PrettyTable(['model', 'samples', '', *figures], align='r')
    table.align['model'] = 'l'
    for model in models:
        for kind in ('all', 'before', 'after'):
            row = model[kind]
            named = kind if kind != 'after' else f'after, T {model["temperature"]:.3g}'
            values = ('-' if row[n] is None else f'{row[n]:.4f}' for n in figures)
            table.add_row([model['name'], f'{row["samples"]:,}', named, *values])
    return f'{table}\n' + '; '.join(
        f'{kind}: {NOTES[kind]}' for kind in ('all', 'before', 'after')
    )
