"""Comparison of segmentation runs by class: table, image and JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.common import write_results
from illama_seg.studies.section import Section
from illama_seg.studies.tables import Table

# Name of a group -> name of each of its runs -> summary of a ConfusionMatrix.
Scores = dict[str, dict[str, dict]]
FILES = ('classes.png', 'classes.json')
SECTION = Section(
    title='Classes beside other runs',
    files='classes.json',
    about='IoU in percent, mean over the runs of a group.',
)


def compare_classes(scores: Scores, source: str, out: Path) -> str:
    """Compare the classes of groups of runs and write the files ``FILES``.

    Args:
        scores: summary of each run in each group, ``mIoU`` and ``classes`` in percent.
        source: origin of the scores, for the reader.
        out: existing folder to write to.

    Returns:
        The table, from the class where the other groups gain most over the first to
        the class where they lose most; with one group, from the best class to the
        worst.
    """
    groups = list(scores)
    rows = {
        name: {group: _mean(scores[group], name) for group in groups}
        for name in _all(scores)
    }
    rows = dict(sorted(rows.items(), key=lambda item: _rank(item[1]), reverse=True))
    mious = {
        group: fmean(summary['mIoU'] for summary in runs.values())
        for group, runs in scores.items()
    }
    others = [f'{group} - {groups[0]}' for group in groups[1:]]
    cells = [[name.strip(), *_cells(row)] for name, row in rows.items()]
    table = Table(
        ['IoU, %', *groups, *others], [['mean', *_cells(mious)], *cells], note=source
    )
    write_results(
        out / 'classes.json',
        [table],
        source=source,
        unit='IoU in percent, mean over the runs of a group',
        groups={
            group: dict(
                mIoU=mious[group],
                runs={name: summary['mIoU'] for name, summary in runs.items()},
            )
            for group, runs in scores.items()
        },
        classes=rows,
        difference={name: _differences(row) for name, row in rows.items()},
    )
    _draw(scores, rows, source, out / 'classes.png')
    return str(table)


def saved_scores(groups: dict[str, list[Path]]) -> tuple[Scores, str]:
    """Read the file ``test/scores.json`` that a test wrote into each run.

    Args:
        groups: work dirs of the runs in each group.

    Returns:
        Scores, and their origin.

    Raises:
        MissingFileError: if a run has no such file.
        UserError: if the files count different numbers of images.
    """
    scores: Scores = {}
    for group, folders in groups.items():
        for folder in folders:
            file = folder / 'test' / 'scores.json'
            if not file.is_file():
                raise MissingFileError(
                    f'no {file}: test the run with work_dir={folder}/test to write it'
                )
            scores.setdefault(group, {})[folder.name] = json.loads(file.read_text())
    counts = {run['images'] for runs in scores.values() for run in runs.values()}
    if len(counts) > 1:
        raise UserError(
            f'test/scores.json of the runs count {sorted(counts)} images: test all '
            'runs on the same images'
        )
    return scores, f'test/scores.json of the runs, {counts.pop()} images'


def _all(scores: Scores) -> list[str]:
    """List the classes that occur in one of the runs, in their own order."""
    summaries = [summary for runs in scores.values() for summary in runs.values()]
    return list(dict.fromkeys(name for each in summaries for name in each['classes']))


def _values(runs: dict[str, dict], name: str) -> list[float]:
    rows = (summary['classes'].get(name) for summary in runs.values())
    return [row['IoU'] for row in rows if row is not None]


def _mean(runs: dict[str, dict], name: str) -> float | None:
    """Average the IoU; None where the class is neither annotated nor predicted."""
    values = _values(runs, name)
    return fmean(values) if values else None


def _differences(row: dict[str, float | None]) -> dict[str, float | None]:
    """Subtract the first group's value from the values of the others."""
    first, *_ = row.values()
    return {
        group: None if first is None or value is None else value - first
        for group, value in list(row.items())[1:]
    }


def _rank(row: dict[str, float | None]) -> tuple[bool, float]:
    values = list(_differences(row).values()) or list(row.values())
    known = [value for value in values if value is not None]
    return bool(known), fmean(known) if known else 0.0


def _cells(row: dict) -> list[str]:
    values = ['-' if value is None else f'{value:.1f}' for value in row.values()]
    gains = _differences(row).values()
    return values + ['-' if gain is None else f'{gain:+.1f}' for gain in gains]


def _draw(scores: Scores, rows: dict[str, dict], source: str, path: Path) -> None:
    """Draw means with the range of a group's runs, and bars of the differences."""
    groups = list(scores)
    height = 0.22 * len(rows) + 1.4
    figure = Figure(figsize=(10, height), layout='constrained')
    columns = min(len(groups), 2)
    left, *right = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    places = range(len(rows))
    for number, group in enumerate(groups):
        colour = f'C{number}'
        every = [_values(scores[group], name) for name in rows]
        known = [(place, values) for place, values in enumerate(every) if values]
        at = [place for place, _ in known]
        means = [fmean(values) for _, values in known]
        low, high = ([end(values) for _, values in known] for end in (min, max))
        left.hlines(at, low, high, color=colour)
        left.plot(means, at, 'o', color=colour, markersize=5, label=group)
        if number:
            gains = [_differences(row)[group] or 0.0 for row in rows.values()]
            thickness = 0.8 / (len(groups) - 1)
            shifted = [place - 0.4 + (number - 0.5) * thickness for place in places]
            right[0].barh(shifted, gains, thickness, color=colour)
    left.set_yticks(places, [name.strip() for name in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set(xlabel='IoU, %', xlim=(-2, 102))
    left.grid(alpha=0.3)
    for axis in right:
        axis.set_xlabel(f'difference to {groups[0]}')
        axis.axvline(0, color='black', lw=0.8)
        axis.grid(axis='x', alpha=0.3)
        axis.tick_params(axis='y', length=0)
    figure.legend(loc='outside upper left', ncols=len(groups), frameon=False)
    figure.supxlabel(source, fontsize=8)
    figure.savefig(path, dpi=110)
