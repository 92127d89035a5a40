"""Models beside each other under one recipe: trained, scored, timed, drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from scipy.stats import t as student

from illama_seg.apis.checks import check_data, check_pretrained, check_schedule
from illama_seg.apis.configs import load_config
from illama_seg.apis.user_errors import check_writable
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.studies.benchmark import run_benchmark
from illama_seg.studies.common import (
    build_model,
    check_at_least,
    mean_and_std,
    write_results,
)
from illama_seg.studies.comparison.classes import compare_classes, saved_scores
from illama_seg.studies.comparison.curves import compare_runs
from illama_seg.studies.comparison.protocol import as_lines, differences, protocol_of
from illama_seg.studies.leaderboard.draw import draw_board
from illama_seg.studies.leaderboard.recipe import changed, settle, under_recipe
from illama_seg.studies.leaderboard.runs import Run, train_missing
from illama_seg.studies.tables import Section, Table, as_text

LEVEL = 0.95  # of the intervals
REPEAT = 10  # timed passes
SECTION = Section(
    title='Leaderboard',
    files='leaderboard.json',
    about='Mean and sample deviation over the seeds. A difference is the mean over the '
    "seeds of a model minus the first one, with a 95 % interval of Student's t.",
    images={'leaderboard.png': 'mIoU of each seed, and mIoU beside the cost'},
)


def run_leaderboard(
    configs: Sequence[str | Path],
    out: str | Path = 'work_dirs/leaderboard',
    *,
    seeds: int = 1,
    dataset: str | None = None,
    workers: int | None = None,
    cfg_options: dict | None = None,
) -> str:
    """Train what is missing and compare the models.

    Each model is trained with the seeds 0 to ``seeds - 1`` in
    ``OUT/NAME/SEED``. Writes ``leaderboard.json`` and ``.png``, the curves
    (``compare.json``, ``.png``) and the classes (``classes.json``, ``.png``).

    Args:
        configs: files, or names of configs of this package; the first is the one that
            the others are compared with.
        out: folder of the board.
        seeds: trainings of each model.
        dataset: train and evaluate under the recipe of this data set, see
            :func:`under_recipe`; None where the configs have one recipe already.
        workers: see :func:`train_missing`.
        cfg_options: overrides of every config.

    Returns:
        The settings that all share, and the table.

    Raises:
        UserError: if the configs differ in data, crop, length or inference, or from
            those that runs in ``out`` were trained with; or if a run fails.
    """
    check_at_least(1, seeds=seeds, workers=workers)
    out = Path(out)
    check_writable(out)
    prepared = _prepare(configs, dataset, cfg_options)
    for name, cfg in prepared.items():
        _check(name, cfg)
    files = {name: _keep(name, cfg, out) for name, cfg in prepared.items()}
    runs = [
        Run(
            name, path, seed, out / name / str(seed), prepared[name].train_cfg.max_iters
        )
        for seed in range(seeds)
        for name, path in files.items()
    ]
    train_missing(runs, workers)
    groups = {name: [r.folder for r in runs if r.name == name] for name in files}
    scores, source = saved_scores(groups)
    compare_classes(scores, source, out)
    compare_runs([out / name for name in files], out)
    rows = _rows(
        {name: [run['mIoU'] for run in each.values()] for name, each in scores.items()}
    )
    crop = tuple(next(iter(prepared.values())).model.data_preprocessor.size)
    for row in rows:
        row |= _cost(files[row['name']], out / row['name'], crop)
    protocol = protocol_of(next(iter(prepared.values())))
    table = _table(rows, crop)
    write_results(
        out / 'leaderboard.json',
        [table],
        protocol=protocol,
        seeds=[*range(seeds)],
        level=LEVEL,
        models=rows,
    )
    draw_board(rows, out / 'leaderboard.png')
    facts = Table((), [(key, value) for key, value in protocol.items()])
    return as_text([facts, table])


def _prepare(
    configs: Sequence[str | Path], dataset: str | None, cfg_options: dict | None
) -> dict[str, Config]:
    """Read the configs, under one recipe.

    Raises:
        UserError: if two have one name, or they differ in more than the model.
    """
    prepared: dict[str, Config] = {}
    for path in configs:
        cfg = load_config(path)
        name = Path(path).stem
        if name in prepared:
            raise UserError(
                f'two configs of one name, {name}: rename one', configs=path
            )
        if 'decode_head' not in cfg.model:
            raise UserError('expected the config of a segmentor', configs=path)
        if dataset is not None:
            cfg = under_recipe(cfg, dataset)
        try:
            cfg.merge_from_dict(cfg_options or {})
        except (KeyError, TypeError, IndexError, AssertionError) as error:
            text = f'does not fit {path}: {error}'
            raise UserError(text, cfg_options=cfg_options) from error
        if 'max_iters' not in cfg.train_cfg:
            raise UserError(
                'expected a training of train_cfg.max_iters iterations: set it, and '
                'train_cfg.type=ResumableIterTrainLoop',
                configs=path,
            )
        prepared[name] = settle(cfg)
    found = differences({name: protocol_of(cfg) for name, cfg in prepared.items()})
    if found:
        raise UserError(
            f'these configs differ in more than the model:\n{as_lines(found)}\nGive '
            'dataset= (--dataset) to train all of them under one recipe, or change them'
        )
    return prepared


def _check(name: str, cfg: Config) -> None:
    """Find what would stop a run before the first of all is trained.

    Raises:
        UserError: names the config.
    """
    try:
        check_data(cfg, ('train', 'val'))
        check_pretrained(cfg)
        check_schedule(cfg)
        build_model(cfg.copy())
    except (UserError, OSError) as error:
        raise UserError(f'{name}: {error}') from error


def _keep(name: str, cfg: Config, out: Path) -> Path:
    """Write a config that all seeds are trained with.

    Raises:
        UserError: if earlier runs were trained with another one; names the setting.
    """
    path = out / name / f'{name}.py'
    cfg.work_dir = str(path.parent)
    if path.is_file() and any(path.parent.glob('*/*/vis_data')):
        setting = changed(cfg, Config.fromfile(path))
        if setting:
            raise UserError(
                f'{path.parent} was trained with other settings ({setting}): choose '
                f'another folder for the board, or delete {path.parent}',
                out=str(out),
            )
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, cfg.pretty_text)
    return path


def _rows(scores: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return mean, deviation and paired difference of each model, by seeds."""
    first = next(iter(scores.values()))
    rows = []
    for number, (name, values) in enumerate(scores.items()):
        row: dict[str, Any] = dict(name=name, mIoU=values, difference=None)
        row |= mean_and_std(values)
        if number:
            pairs = [a - b for a, b in zip(values, first, strict=True)]
            row['difference'] = dict(
                each=pairs, mean=statistics.fmean(pairs), interval=interval(pairs)
            )
        rows.append(row)
    return rows


def interval(differences: Sequence[float]) -> list[float] | None:
    """Return the interval of the mean of paired differences, by Student's t.

    None for one difference.
    """
    count = len(differences)
    if count < 2:
        return None
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(count)
    half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * error
    return [mean - half, mean + half]


def _cost(config: Path, out: Path, crop: tuple[int, ...]) -> dict[str, Any]:
    """Measure a model for one image of the crop's size."""
    numbers, _ = run_benchmark(
        config, out=out / 'benchmark.json', shape=(crop[0], crop[1]), repeat=REPEAT
    )
    timing = numbers['timings'][0]
    (count,) = (
        row['executed']
        for row in numbers['multiply_accumulates']
        if tuple(row['shape']) == tuple(crop)
        and row['attention_products']
        and not row['auxiliary_head']
    )
    return dict(
        parameters=numbers['parameters']['all'],
        multiply_accumulates=count,
        milliseconds=1e3 * timing['seconds'] if 'seconds' in timing else None,
        peak_memory_mib=timing.get('peak_memory_mib'),
        device=numbers['device'],
        precision=numbers['precision'],
    )


def _table(rows: Sequence[dict], crop: tuple[int, ...]) -> Table:
    cells = []
    for row in rows:
        deviation = f' ± {row["std"]:.1f}' if len(row['mIoU']) > 1 else ''
        cells.append(
            [
                row['name'],
                f'{row["mean"]:.1f}{deviation}',
                ', '.join(f'{value:.1f}' for value in row['mIoU']),
                _difference(row['difference']),
                f'{row["parameters"] / 1e6:.2f}',
                f'{row["multiply_accumulates"] / 1e9:.2f}',
                _number(row['milliseconds'], '.0f'),
                _number(row['peak_memory_mib'], '.0f'),
            ]
        )
    size = 'x'.join(map(str, crop))
    device = rows[0]['device']
    note = (
        f'G: multiply-accumulates that run; with time and peak memory of one image of '
        f'{size}, {rows[0]["precision"]}, {device}'
    )
    heads = [
        'model', 'mIoU, %', 'each seed', 'minus the first, 95 %', 'parameters, M', 'G',
        'ms', 'MiB',
    ]  # fmt: skip
    return Table(heads, cells, note=note)


def _difference(found: dict | None) -> str:
    if found is None:
        return '-'
    text = f'{found["mean"]:+.1f}'
    if found['interval']:
        low, high = found['interval']
        text += f' [{low:+.1f}, {high:+.1f}]'
    return text


def _number(value: float | None, template: str) -> str:
    return '-' if value is None else format(value, template)
