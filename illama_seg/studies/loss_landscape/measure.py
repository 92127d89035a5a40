"""Loss of classifiers and segmentors on a plane through their weights."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.user_errors import check_seed
from illama_seg.errors import UserError
from illama_seg.files import atomic
from illama_seg.studies.common import (
    check_at_least,
    file_name,
    read_earlier,
    results_path,
    write_results,
)
from illama_seg.studies.logits import Batch, ImageLogits, PixelLogits, model_logits
from illama_seg.studies.loss_landscape.draw import draw_loss_landscape
from illama_seg.studies.loss_landscape.plane import WeightPlane, weights_digest
from illama_seg.studies.tables import Section, Table

FILES = ('loss_landscape.json', 'loss_landscape.png')
NOTES = dict(
    loss='mean cross entropy of images, or of the labelled pixels of a segmentation',
    plane='weights + x * d1 + y * d2 with the directions of arXiv 1712.09913: each '
    'filter has the norm of the filter of the weights; biases and norms are fixed',
    grid='rows are y, columns are x; axis has the values of both',
)
SECTION = Section(
    title='Loss landscape',
    files='loss_landscape*.json',
    about='Loss on a plane of two random directions around the weights.',
    command='python tools/analysis/loss_landscape.py {config} {checkpoint}',
    images={FILES[1]: 'Surface and contours of the loss around the weights'},
)
COLUMNS = {
    'model': '{model}',
    'data': '{data}',
    'images': '{images:,}',
    'centre': '{centre:.4g}',
    'lowest': '{lowest:.4g}',
    'median': '{median:.4g}',
    'highest': '{highest:.4g}',
    'within +1': '{within_1:.1%}',
}
Point = tuple[int, int]  # row, column


def measure_loss_landscape(
    config: str | Path,
    sources: Sequence[str | Path],
    *,
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
    """Compute the loss on a grid of weights and write the files ``FILES``.

    Each point is written to ``points_MODEL.jsonl`` once it is computed; a later call
    with the same settings continues from there, and one with others is refused. See
    :mod:`illama_seg.studies` for the other parameters, the result and errors.

    Args:
        points: number of points on a side of the grid, odd.
        radius: the grid goes from -radius to radius, in norms of the filters.
        num_images: number of images drawn from the split.
        split: 'train' or 'test'; images are loaded as for a test.
        seed: seed of the directions and of the images drawn.
        restart: compute all points again.
    """
    check_at_least(1, num_images=num_images, batch_size=batch_size)
    if points < 3 or points % 2 == 0:
        raise UserError('expected an odd number from 3 on', points=points)
    if not radius > 0:
        raise UserError('expected a number above 0', radius=radius)
    if split not in ('train', 'test'):
        raise UserError("expected 'train' or 'test'", split=split)
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    earlier = read_earlier(beside, FILES[0], _check)
    folder = results_path(out, cfg, 'loss_landscape')
    axis = np.linspace(-radius, radius, points).tolist()
    results: list[dict] = []
    for source in sources:
        model = model_logits(cfg.copy(), source, split, batch_size, device)
        if model.name in [result['name'] for result in results]:
            raise UserError(
                f'{source}: a second model named {model.name}; rename one of them'
            )
        order = np.random.default_rng(seed).permutation(model.num_images)
        indices = sorted(order[:num_images].tolist())
        model.keep(indices)
        settings = dict(
            source=str(source),
            config=str(config),
            weights=weights_digest(model.module),
            kind=model.kind,
            data=cfg[f'{split}_dataloader'].dataset.type,
            of=model.num_images,
            images=len(indices),
            options=json.loads(json.dumps(cfg_options or {}, default=str)),
            split=split,
            seed=seed,
            radius=radius,
            points=points,
        )
        file = folder / f'points_{file_name(model.name)}.jsonl'
        done = {} if restart else _resume(file, settings)
        _compute(model, indices, axis, settings=settings, file=file, done=done)
        side = range(points)
        grids = {
            name: [[done[row, column][name] for column in side] for row in side]
            for name in ('loss', 'accuracy')
        }
        results.append(dict(name=model.name, **settings, axis=axis, **grids))
    models = [*results, *earlier]
    summary = _summary(models)
    table = _table(summary)
    numbers = write_results(
        folder / FILES[0],
        [table],
        indent=None,
        summary=summary,
        models=models,
        notes=NOTES,
        precision='float32',
    )
    draw_loss_landscape(models, folder / FILES[1])
    return numbers, str(table)


def _compute(
    model: ImageLogits | PixelLogits,
    indices: list[int],
    axis: list[float],
    *,
    settings: dict,
    file: Path,
    done: dict[Point, dict],
) -> None:
    """Compute the missing points and append each to the file at once."""
    todo = [at for at in product(range(len(axis)), repeat=2) if at not in done]
    # Written again, since the last line may be truncated.
    lines = [settings, *({'at': at, **values} for at, values in done.items())]
    with atomic(file) as complete:
        complete.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    progress = tqdm(todo, model.name, len(axis) ** 2, initial=len(done), unit='point')
    with file.open('a') as stream, WeightPlane(model.module, settings['seed']) as plane:
        for row, column in progress:
            plane.move(axis[column], axis[row])
            values = _loss(model.batches(indices), model.ignore_index)
            done[row, column] = values
            stream.write(json.dumps(dict(at=[row, column], **values)) + '\n')
            stream.flush()


def _loss(batches: Iterator[Batch], ignore_index: int) -> dict[str, float | None]:
    """Compute the mean cross entropy, None where it is not finite, and the accuracy."""
    loss, hits, count = 0.0, 0, 0
    for logits, labels, _ in batches:
        labelled = labels != ignore_index
        logits, labels = logits[labelled], labels[labelled]
        loss += float(F.cross_entropy(logits.double(), labels, reduction='sum'))
        hits += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    mean = loss / count
    return dict(loss=mean if math.isfinite(mean) else None, accuracy=hits / count)


def _resume(file: Path, settings: dict) -> dict[Point, dict]:
    """Read the points of an earlier call with the same settings."""
    if not file.is_file():
        return {}
    fix = 'choose another folder (out), or compute all points again (restart)'
    first, *lines = file.read_text().splitlines() or ['']
    try:
        content = json.loads(first)
        earlier = {key: content[key] for key in settings}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{file} does not start with the settings: {fix}') from error
    for key, value in settings.items():
        if earlier[key] != value:
            raise UserError(
                f'{file} has points of other settings, {key}={earlier[key]!r} instead '
                f'of {value!r}: {fix}'
            )
    done = {}
    for number, line in enumerate(lines, 2):
        try:
            values = json.loads(line)
            row, column = values.pop('at')
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number == len(lines) + 1:  # truncated by a kill or a full disk
                break
            raise UserError(f'{file}, line {number}, is damaged: {fix}') from error
        done[row, column] = values
    print_log(f'{file}: continuing after {len(done)} points', logger='current')
    return done


def _check(models: list[dict]) -> None:
    """Raise an error where an earlier model lacks what is drawn or printed."""
    for model in models:
        model['accuracy'][0][0], model['axis'][0]
    _summary(models)


def _summary(models: Sequence[dict]) -> list[dict]:
    rows = []
    for model in models:
        loss = np.array(model['loss'], float)  # None is nan
        centre = loss[len(loss) // 2, len(loss) // 2]
        rows.append(
            dict(
                model=model['name'],
                data=f'{model["data"]}, {model["split"]}',
                images=model['images'],
                centre=float(centre),
                lowest=float(np.nanmin(loss)),
                median=float(np.nanmedian(loss)),
                highest=float(np.nanmax(loss)),
                within_1=float((loss <= centre + 1).mean()),
            )
        )
    return rows


def _table(summary: Sequence[dict]) -> Table:
    note = (
        f'{NOTES["loss"]}; within +1: share of the grid where the loss is at most 1 '
        'above the centre'
    )
    return Table.of(summary, COLUMNS, note=note)
