"""Comparison of segmentation runs by class: table, image and JSON file."""

import json
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from illama_seg.errors import MissingFileError, UserError
from illama_seg.studies.common import write_results
from illama_seg.studies.tables import Section, Table

# Name of a group -> name of each of its runs -> summary of a ConfusionMatrix.
Scores = dict[str, dict[str, dict]]
Row = dict[str, float | None]  # name of a group -> value
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
    summaries = [summary for runs in scores.values() for summary in runs.values()]
    # In their own order; a class occurs in one of the runs at least.
    names = dict.fromkeys(name for each in summaries for name in each['classes'])
    values = {
        name: {group: _values(runs, name) for group, runs in scores.items()}
        for name in names
    }
    rows: dict[str, Row] = {
        name: {group: fmean(ious) if ious else None for group, ious in by_group.items()}
        for name, by_group in values.items()
    }
    rows = dict(sorted(rows.items(), key=lambda item: _rank(item[1]), reverse=True))
    mious: Row = {
        group: fmean(summary['mIoU'] for summary in runs.values())
        for group, runs in scores.items()
    }
    others = [f'{group} - {groups[0]}' for group in groups[1:]]
    named = [('mean', mious), *rows.items()]
    cells = [[name.strip(), *_cells(row)] for name, row in named]
    table = Table(['IoU, %', *groups, *others], cells, note=source)
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
    _draw(groups, {name: values[name] for name in rows}, rows, source, out / FILES[0])
    return str(table)


def saved_scores(groups: dict[str, list[Path]]) -> tuple[Scores, str]:
    """Read the scores that a test wrote into each run of a group, and their origin.

    Raises:
        MissingFileError: if a run has no ``test/scores.json``.
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


def _values(runs: dict[str, dict], name: str) -> list[float]:
    """List the IoUs of the runs where the class is annotated or predicted."""
    rows = (summary['classes'].get(name) for summary in runs.values())
    return [row['IoU'] for row in rows if row is not None]


def _differences(row: Row) -> Row:
    """Subtract the first group's value from the values of the others."""
    (_, first), *others = row.items()
    return {
        group: None if first is None or value is None else value - first
        for group, value in others
    }


def _rank(row: Row) -> tuple[bool, float]:
    values = (_differences(row) or row).values()
    known = [value for value in values if value is not None]
    return bool(known), fmean(known) if known else 0.0


def _cells(row: Row) -> list[str]:
    values = ['-' if value is None else f'{value:.1f}' for value in row.values()]
    gains = _differences(row).values()
    return values + ['-' if gain is None else f'{gain:+.1f}' for gain in gains]


def _draw(
    groups: list[str],
    values: dict[str, dict[str, list[float]]],
    rows: dict[str, Row],
    source: str,
    path: Path,
) -> None:
    """Draw means with the range of a group's runs, and bars of the differences."""
    figure = Figure(figsize=(10, 0.22 * len(rows) + 1.4), layout='constrained')
    columns = min(len(groups), 2)
    left, *right = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    thickness = 0.8 / max(len(groups) - 1, 1)
    for number, group in enumerate(groups):
        colour = f'C{number}'
        every = enumerate(by_group[group] for by_group in values.values())
        known = {place: ious for place, ious in every if ious}
        means = [fmean(ious) for ious in known.values()]
        low, high = ([end(ious) for ious in known.values()] for end in (min, max))
        left.hlines(list(known), low, high, color=colour)
        left.plot(means, list(known), 'o', color=colour, markersize=5, label=group)
        if number:
            gains = [_differences(row)[group] or 0.0 for row in rows.values()]
            shift = (number - 0.5) * thickness - 0.4
            places = [place + shift for place in range(len(rows))]
            right[0].barh(places, gains, thickness, color=colour)
    left.set_yticks(range(len(rows)), [name.strip() for name in rows], fontsize=8)
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
