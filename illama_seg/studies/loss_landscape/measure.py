"""Loss of classifiers and segmentors on a plane through their weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from prettytable import PrettyTable
from torch import Tensor, nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import logit_blocks
from illama_seg.apis.user_errors import check_seed, check_writable, options_explained
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.loss_landscape.draw import draw_loss_landscape
from illama_seg.studies.loss_landscape.plane import WeightPlane, weights_digest
from illama_seg.studies.subjects import build_classifier, source_name

FILES = ('loss_landscape.json', 'loss_landscape.png')
NOTES = dict(
    loss='mean cross entropy of images, or of the labelled pixels of a segmentation',
    plane='weights + x * d1 + y * d2, directions of arXiv 1712.09913: every filter as '
    'long as that of the weights, biases and norms left',
    grid='rows are y, columns x, both as in axis',
)

Part = tuple[Tensor, Tensor]  # logits (N, num_classes), labels (N,)


class _Model(NamedTuple):
    """A model, and what yields its logits and labels."""

    name: str
    module: nn.Module
    parts: Callable[[], Iterator[Part]]
    settings: dict


def measure_loss_landscape(
    config: str | Path,
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    beside: Sequence[str | Path] = (),
    points: int = 21,
    radius: float = 1.0,
    num_images: int = 256,
    split: str = 'train',
    seed: int = 0,
    restart: bool = False,
    batch_size: int | None = None,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Compute the loss on a grid of weights, and write the files ``FILES``.

    Each point is written as it is computed, to ``points_MODEL.jsonl``; a call with the
    same settings goes on from there.

    Args:
        config: config of a classification or segmentation, or its name.
        sources: checkpoints of this config; for a classification also 'random' and
            timm's models, see :func:`illama_seg.studies.build_classifier`.
        out: folder to write to; by default ``loss_landscape`` in the config's work dir.
        beside: loss_landscape.json of earlier calls, whose models are shown beside.
        points: to a side of the grid, odd.
        radius: the grid goes from -radius to radius, in lengths of the filters.
        num_images: how many, drawn from the split.
        split: 'train' or 'test'; images are loaded as for a test.
        seed: of the directions and of the draw.
        restart: forget the points of an earlier call.
        batch_size: images at once; of a segmentation, windows.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        cfg_options: overrides of the config.

    Returns:
        What is in loss_landscape.json, and a readable table.

    Raises:
        FileNotFoundError: if a file is missing.
        ConnectionError: if weights cannot be downloaded.
        ValueError: if an option is out of its range, a model does not fit, or the
            points of an earlier call are of other settings.
    """
    if points < 3 or points % 2 == 0 or not radius > 0 or num_images < 1:
        raise UserError(
            f'--points {points} --radius {radius} --num-images {num_images}: expected '
            'an odd number from 3 on, a radius above 0, and at least 1 image'
        )
    if split not in ('train', 'test') or (batch_size is not None and batch_size < 1):
        raise UserError(
            f'--split {split} --batch-size {batch_size}: expected train or test, and a '
            'batch of at least 1'
        )
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    earlier = [model for path in beside for model in _read(path)]
    folder = Path(out or Path(cfg.work_dir) / 'loss_landscape')
    check_writable(folder)
    axis = np.linspace(-radius, radius, points).tolist()
    results: list[dict] = []
    for source in sources:
        make = _pixels_of if 'decode_head' in cfg.model else _images_of
        model = make(cfg.copy(), source, num_images, split, seed, batch_size, device)
        if model.name in [result['name'] for result in results]:
            raise UserError(
                f'{source}: a second model named {model.name}; rename one of them'
            )
        settings = dict(
            source=str(source),
            config=str(config),
            weights=weights_digest(model.module),
            **model.settings,
            options=json.loads(json.dumps(cfg_options or {}, default=str)),
            split=split,
            seed=seed,
            radius=radius,
            points=points,
        )
        name = re.sub(r'[^\w.-]+', '_', model.name)
        file = folder / f'points_{name}.jsonl'
        done = {} if restart else _resume(file, settings)
        _compute(model, axis, settings, file, done)
        results.append(dict(name=model.name, **settings, axis=axis, **_grids(done)))
    models = [*results, *earlier]
    summary = _summary(models)
    numbers = dict(
        summary=summary,
        models=models,
        notes=NOTES,
        precision='float32',
        versions=dict(torch=torch.__version__, timm=timm.__version__),
    )
    (folder / 'loss_landscape.json').write_text(json.dumps(numbers) + '\n')
    draw_loss_landscape(models, folder / 'loss_landscape.png')
    return numbers, _table(summary)


# Grid

Point = tuple[int, int]  # row, column


def _compute(
    model: _Model, axis: list[float], settings: dict, file: Path, done: dict
) -> None:
    """Compute the points that lack; each goes to the file at once."""
    todo = [
        (row, column)
        for row in range(len(axis))
        for column in range(len(axis))
        if (row, column) not in done
    ]
    # Written anew, since its last line may have been cut off.
    lines = [settings, *({'at': at, **values} for at, values in done.items())]
    whole = file.with_suffix('.tmp')
    whole.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    whole.replace(file)
    with (
        file.open('a') as stream,
        WeightPlane(model.module, settings['seed']) as plane,
        tqdm(
            total=len(axis) ** 2, initial=len(done), desc=model.name, unit='point'
        ) as progress,
    ):
        for row, column in todo:
            plane.move(axis[column], axis[row])
            values = _loss(model.parts())
            done[row, column] = values
            stream.write(json.dumps(dict(at=[row, column], **values)) + '\n')
            stream.flush()
            progress.update()


def _loss(parts: Iterator[Part]) -> dict[str, float | None]:
    """Mean cross entropy, None where it is not finite, and accuracy."""
    loss, hits, count = 0.0, 0, 0
    for logits, labels in parts:
        loss += float(F.cross_entropy(logits.double(), labels, reduction='sum'))
        hits += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    mean = loss / count
    return dict(loss=mean if math.isfinite(mean) else None, accuracy=hits / count)


def _resume(file: Path, settings: dict) -> dict[Point, dict]:
    """Points of an earlier call of the same settings."""
    if not file.is_file():
        return {}
    way_out = 'name another folder with --out, or begin anew with --restart'
    first, *lines = file.read_text().splitlines() or ['']
    try:
        found = json.loads(first)
        kept = {key: found[key] for key in settings}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file} has no settings of this tool: {way_out}') from error
    wrong = [key for key in settings if kept[key] != settings[key]]
    if wrong:
        raise UserError(
            f'{file} has points of another call, {wrong[0]}={kept[wrong[0]]!r} where '
            f'it is {settings[wrong[0]]!r} now: {way_out}'
        )
    done = {}
    for number, line in enumerate(lines, 2):
        try:
            values = json.loads(line)
            row, column = values.pop('at')
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines) + 1:  # cut off, by a kill or a full disk
                break
            raise UserError(f'{file}, line {number}, is damaged: {way_out}') from error
        done[row, column] = values
    print_log(f'{file}: going on after {len(done)} points', logger='current')
    return done


def _grids(done: dict[Point, dict]) -> dict[str, list]:
    side = math.isqrt(len(done))
    return {
        name: [
            [done[row, column][name] for column in range(side)] for row in range(side)
        ]
        for name in ('loss', 'accuracy')
    }


# Data


def _images_of(
    cfg: Config,
    source: str | Path,
    num_images: int,
    split: str,
    seed: int,
    batch_size: int | None,
    device: str | None,
) -> _Model:
    classifier = build_classifier(cfg, source, device)
    loader = cfg[f'{split}_dataloader']
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with options_explained(cfg):
        data: Any = DATASETS.build(dict(loader.dataset, pipeline=[]))
    infos = [data.get_data_info(n) for n in _drawn(len(data), num_images, seed)]
    labels = torch.tensor([int(info['gt_label']) for info in infos])
    if classifier.num_classes <= int(labels.max()):
        raise UserError(
            f'{classifier.name} has {classifier.num_classes} classes, the {split} data '
            f'of {cfg.filename} a label {int(labels.max())}: expected the same'
        )
    images = [classifier.load(info) for info in infos]
    size = batch_size or loader.batch_size

    def parts() -> Iterator[Part]:
        for start in range(0, len(images), size):
            batch = slice(start, start + size)
            yield classifier.logits(images[batch]), labels[batch]

    settings = dict(
        kind='classification', data=loader.dataset.type, of=len(data), images=len(infos)
    )
    return _Model(classifier.name, classifier.module or nn.Identity(), parts, settings)


def _pixels_of(
    cfg: Config,
    source: str | Path,
    num_images: int,
    split: str,
    seed: int,
    batch_size: int | None,
    device: str | None,
) -> _Model:
    model = load_segmentor(cfg, source, device)
    classes = dataset_meta(model)['classes']
    if (channels := cast(Any, model).out_channels) != len(classes):
        raise UserError(
            f'{source} has {channels} logits for {len(classes)} classes: expected one '
            'for each class'
        )
    data = LabelledImages(cfg, split)
    indices = _drawn(len(data), num_images, seed)
    if all((data[index][1] == 255).all() for index in indices):
        raise UserError(
            f'--num-images {num_images}: the images drawn from the {split} data of '
            f'{cfg.filename} have no labelled pixel; draw more, or by another --seed'
        )

    def parts() -> Iterator[Part]:
        for index in indices:
            image, label, _ = data[index]
            truth = torch.from_numpy(label.astype(np.int64))
            for rows, columns, logits in logit_blocks(model, image, batch_size or 1):
                labels = truth[rows, columns].flatten()
                flat = logits.flatten(1).T.float().cpu()
                yield flat[labels != 255], labels[labels != 255]

    kind = cfg[f'{split}_dataloader'].dataset.type
    settings = dict(kind='segmentation', data=kind, of=len(data), images=len(indices))
    return _Model(source_name(source), model, parts, settings)


def _drawn(length: int, count: int, seed: int) -> list[int]:
    order = np.random.default_rng(seed).permutation(length)
    return sorted(order[:count].tolist())


# Files


def _read(path: str | Path) -> list[dict]:
    try:
        models = json.loads(Path(path).read_text())['models']
        for model in models:
            (
                model['name'],
                model['loss'][0][0],
                model['accuracy'][0][0],
                model['axis'][0],
            )
        _summary(models)  # what it lacks is met now, not after the measuring
        return models
    except FileNotFoundError as error:
        raise MissingFileError(f'--beside: no file {path}') from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(
            f'--beside {path}: expected a loss_landscape.json of this tool '
            f'({type(error).__name__}: {error})'
        ) from error


def _summary(models: Sequence[dict]) -> list[dict]:
    rows = []
    for model in models:
        loss = np.array(model['loss'], float)  # None is nan
        centre = loss[len(loss) // 2, len(loss) // 2]
        figures = dict(
            centre=centre,
            lowest=np.nanmin(loss),
            median=np.nanmedian(loss),
            highest=np.nanmax(loss),
        )
        rows.append(
            dict(
                model=model['name'],
                data=f'{model["data"]}, {model["split"]}',
                images=model['images'],
                **{name: float(value) for name, value in figures.items()},
                within_1=float((loss <= centre + 1).mean()),
            )
        )
    return rows


def _table(summary: Sequence[dict]) -> str:
    columns = ('model', 'data', 'images', 'centre', 'lowest', 'median', 'highest')
    table = PrettyTable([*columns, 'within +1'], align='r')
    table.align['model'] = table.align['data'] = 'l'
    for row in summary:
        name, data, images, *figures = (row[column] for column in columns)
        figures = [f'{value:.4g}' for value in figures]
        table.add_row([name, data, images, *figures, f'{row["within_1"]:.1%}'])
    return (
        f'{table}\n{NOTES["loss"]}; within +1: the share of the grid where it is at '
        'most 1 above the centre'
    )
