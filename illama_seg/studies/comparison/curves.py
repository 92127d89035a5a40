"""Comparison of training runs: last scores, curves and JSON file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from illama_seg.apis.user_errors import check_writable
from illama_seg.apis.work_dir import Points, runs_in, scalars_of
from illama_seg.errors import UserError
from illama_seg.studies.common import mean_and_std, write_results
from illama_seg.studies.comparison.protocol import (
    as_lines,
    differences,
    protocols_in,
)
from illama_seg.studies.tables import Section, Table
from illama_seg.visualization.curves import METRICS, draw_mean

SECTION = Section(
    title='Beside other runs',
    files='compare.json',
    about='Last scores; mean and standard deviation over seeds.',
    command='python tools/analysis/compare.py {run} RUN --out {run}/compare',
    images={
        'compare.png': 'Training loss and validation metric of each run over the '
        'training'
    },
)


def compare_runs(runs: Sequence[str | Path], out: str | Path) -> str:
    """Compare groups of runs that differ in their seeds only.

    Writes ``compare.json`` and ``compare.png`` into ``out``. Settings of data, crop,
    length and inference that are not the same in all groups stand below the table.

    Args:
        runs: work dirs of trainings, or folders of work dirs; each is a group with the
            name of its folder.
        out: folder to write to.

    Returns:
        The table: mean and standard deviation over the runs of a group.

    Raises:
        MissingFileError: if a folder neither is nor has a work dir.
        UserError: if runs have no metric in common, or two have the same name.
    """
    folders = [Path(run) for run in runs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f'two runs of one name: {", ".join(names)}; rename a folder')
    members = dict(zip(names, map(runs_in, folders), strict=True))
    groups = {
        name: {run.name: scalars_of(run) for run in runs}
        for name, runs in members.items()
    }
    every = [scalars for group in groups.values() for scalars in group.values()]
    metric = next((key for key in METRICS if all(key in run for run in every)), None)
    if metric is None:
        raise UserError(
            f'{", ".join(names)}: expected runs that were all evaluated for one of '
            f'{", ".join(METRICS)} (val_interval at most the length of the training)'
        )
    summary = {
        name: {
            key: _summary([run[key] for run in group.values()], best)
            for key, best in ((metric, max), ('loss', min))
            if all(key in run for run in group.values())
        }
        for name, group in groups.items()
    }
    out = Path(out)
    check_writable(out)
    differ = differences(protocols_in(members))
    note = f'These runs differ in more than the model:\n{as_lines(differ)}'
    table = _table(summary, metric, note if differ else '')
    results: dict = dict(metric=metric, summary=summary, curves=groups)
    write_results(out / 'compare.json', [table], differences=differ, **results)
    _draw(groups, metric, out / 'compare.png')
    return str(table)


def _summary(curves: list[Points], best: Callable) -> dict:
    last = [curve[-1][1] for curve in curves]
    return dict(
        **mean_and_std(last),
        last=last,
        best=[best(value for _, value in curve) for curve in curves],
        steps=[curve[-1][0] for curve in curves],
    )


def _table(summary: dict[str, dict], metric: str, note: str) -> Table:
    title, unit = METRICS[metric]
    rows = []
    for name, row in summary.items():
        scores, loss = row[metric], row.get('loss')
        seeds, steps = len(scores['last']), scores['steps']
        deviation = f' ± {scores["std"]:.1f}' if seeds > 1 else ''
        cells = [
            ' to '.join(f'{step:g}' for step in sorted({min(steps), max(steps)})),
            f'{scores["mean"]:.1f}{deviation}',
            f'{max(scores["best"]):.1f}',
            f'{loss["mean"]:.3f}' if loss else '-',
        ]
        rows.append([name, str(seeds), *cells])
    heads = ['run', 'seeds', unit, f'{title}, %', 'best', 'loss']
    return Table(heads, rows, note=note)


def _draw(groups: dict[str, dict], metric: str, path: Path) -> None:
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    axes = figure.subplots(1, 2)
    for number, (name, group) in enumerate(groups.items()):
        for axis, key in zip(axes, ('loss', metric), strict=True):
            curves = [dict(run[key]) for run in group.values() if key in run]
            steps = sorted(set.intersection(*map(set, curves))) if curves else []
            if steps:
                columns = [[curve[step] for curve in curves] for step in steps]
                style = dict(color=f'C{number}', marker='.' if key == metric else None)
                draw_mean(axis, steps, columns, label=name, **style)
    title, unit = METRICS[metric]
    axes[0].set(xlabel='iteration', ylabel='training loss')
    axes[1].set(xlabel=unit, ylabel=f'validation {title}, %')
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    axes[1].legend(loc='lower right', frameon=False)
    figure.savefig(path, dpi=110)
