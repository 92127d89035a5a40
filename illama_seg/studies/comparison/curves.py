"""Training runs side by side: the last figures, curves, and their numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from prettytable import PrettyTable

from illama_seg.apis.user_errors import check_writable
from illama_seg.apis.work_dir import Points, runs_in, scalars_of
from illama_seg.errors import UserError
from illama_seg.visualization.curves import METRICS


def compare_runs(runs: Sequence[str | Path], out: str | Path) -> str:
    """Compare runs, and groups of runs that differ in their seeds alone.

    Writes ``compare.json`` and ``compare.png`` into ``out``.

    Args:
        runs: work dirs of ``tools/train.py``, or folders of such; each is a line of the
            table, named as the folder.
        out: folder to write.

    Returns:
        The table: mean and standard deviation over the runs of a line.

    Raises:
        FileNotFoundError: if a folder is, and has, no work dir.
        ValueError: if runs have no metric in common, or two have one name.
    """
    folders = [Path(run) for run in runs]
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f'two runs of one name: {", ".join(names)}; rename a folder')
    groups = {
        name: {run.name: scalars_of(run) for run in runs_in(folder)}
        for name, folder in zip(names, folders, strict=True)
    }
    every = [scalars for group in groups.values() for scalars in group.values()]
    metric = next((key for key in METRICS if all(key in run for run in every)), None)
    if metric is None:
        raise UserError(
            f'{", ".join(names)}: expected runs that were all evaluated for one of '
            f'{", ".join(METRICS)} (val_interval not beyond the end of the training)'
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
    numbers = dict(metric=metric, summary=summary, curves=groups)
    (out / 'compare.json').write_text(json.dumps(numbers, indent=1))
    _draw(groups, metric, out / 'compare.png')
    return _table(summary, metric)


def _summary(curves: list[Points], best) -> dict:
    last = [curve[-1][1] for curve in curves]
    return dict(
        mean=statistics.fmean(last),
        std=statistics.stdev(last) if len(last) > 1 else 0.0,
        last=last,
        best=[best(value for _, value in curve) for curve in curves],
        steps=[curve[-1][0] for curve in curves],
    )


def _table(summary: dict[str, dict], metric: str) -> str:
    title, unit = METRICS[metric]
    columns = ['run', 'seeds', unit, f'{title}, %', 'best', 'loss']
    table = PrettyTable(columns, align='r')
    table.align['run'] = 'l'
    for name, row in summary.items():
        found, loss = row[metric], row.get('loss')
        seeds, steps = len(found['last']), sorted(found['steps'])
        spread = f' ± {found["std"]:.1f}' if seeds > 1 else ''
        table.add_row(
            [
                name,
                seeds,
                ' to '.join(
                    f'{step:g}' for step in dict.fromkeys((steps[0], steps[-1]))
                ),
                f'{found["mean"]:.1f}{spread}',
                f'{max(found["best"]):.1f}',
                f'{loss["mean"]:.3f}' if loss else '-',
            ]
        )
    return str(table)


def _draw(groups: dict[str, dict], metric: str, path: Path) -> None:
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    axes = figure.subplots(1, 2)
    for number, (name, group) in enumerate(groups.items()):
        for axis, key in zip(axes, ('loss', metric), strict=True):
            curves = [dict(run[key]) for run in group.values() if key in run]
            steps = sorted(set.intersection(*map(set, curves))) if curves else []
            if not steps:
                continue
            columns = [[curve[step] for curve in curves] for step in steps]
            means = [statistics.fmean(column) for column in columns]
            marker = '.' if key == metric else None
            axis.plot(steps, means, color=f'C{number}', label=name, marker=marker)
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            axis.fill_between(steps, low, high, color=f'C{number}', alpha=0.2, lw=0)
    title, unit = METRICS[metric]
    axes[0].set(xlabel='iteration', ylabel='training loss')
    axes[1].set(xlabel=unit, ylabel=f'validation {title}, %')
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    axes[1].legend(loc='lower right', frameon=False)
    figure.savefig(path, dpi=110)
