"""Classes of segmentation runs side by side: table, picture and their numbers."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure
from prettytable import PrettyTable

from illama_seg.errors import MissingFileError, UserError

# Name of a line -> name of each of its runs -> summary of a ConfusionMatrix.
Scores = dict[str, dict[str, dict]]
FILES = ('classes.png', 'classes.json')


def compare_classes(scores: Scores, source: str, out: Path) -> str:
    """Write ``classes.png`` and ``classes.json`` into ``out``; differences to line one.

    Args:
        scores: of each line and run of it, with ``mIoU`` and ``classes``, in percent.
        source: where they come from, for the reader.
        out: folder, which is there.

    Returns:
        The table, from the class that the other lines gain most to where they lose
        most; with one line, from the best class to the worst.
    """
    lines = list(scores)
    rows = {
        name: {line: _mean(scores[line], name) for line in lines}
        for name in _all(scores)
    }
    rows = dict(sorted(rows.items(), key=lambda item: _rank(item[1]), reverse=True))
    mious = {
        line: fmean(summary['mIoU'] for summary in runs.values())
        for line, runs in scores.items()
    }
    numbers = dict(
        source=source,
        unit='IoU in percent, mean over the runs of a line',
        lines={
            line: dict(
                mIoU=mious[line],
                runs={name: summary['mIoU'] for name, summary in runs.items()},
            )
            for line, runs in scores.items()
        },
        classes=rows,
        difference={name: _differences(row) for name, row in rows.items()},
    )
    (out / 'classes.json').write_text(json.dumps(numbers, indent=1))
    _draw(scores, rows, source, out / 'classes.png')

    others = [f'{line} - {lines[0]}' for line in lines[1:]]
    table = PrettyTable(['IoU, %', *lines, *others], align='r')
    table.align['IoU, %'] = 'l'
    table.add_row(['mean', *_cells(mious)], divider=True)
    for name, row in rows.items():
        table.add_row([name.strip(), *_cells(row)])
    return f'{table}\n{source}'


def saved_scores(lines: dict[str, list[Path]]) -> tuple[Scores, str]:
    """Read ``test/scores.json``, which ``tools/test.py`` left in the runs.

    Args:
        lines: runs of each line.

    Returns:
        Scores, and where they come from.

    Raises:
        FileNotFoundError: if a run has none.
        ValueError: if they count different numbers of images.
    """
    scores: Scores = {}
    for line, folders in lines.items():
        for folder in folders:
            file = folder / 'test' / 'scores.json'
            if not file.is_file():
                raise MissingFileError(
                    f'no {file}: tools/test.py CONFIG CHECKPOINT --work-dir '
                    f'{folder}/test writes it'
                )
            scores.setdefault(line, {})[folder.name] = json.loads(file.read_text())
    numbers = {found['images'] for runs in scores.values() for found in runs.values()}
    if len(numbers) > 1:
        raise UserError(
            f'test/scores.json of the runs count {sorted(numbers)} images: test all '
            'runs on the same'
        )
    return scores, f'test/scores.json of the runs, {numbers.pop()} images'


def _all(scores: Scores) -> list[str]:
    """Classes that occur in one of the runs, in their own order."""
    summaries = [summary for runs in scores.values() for summary in runs.values()]
    return list(dict.fromkeys(name for found in summaries for name in found['classes']))


def _values(runs: dict[str, dict], name: str) -> list[float]:
    found = (summary['classes'].get(name) for summary in runs.values())
    return [row['IoU'] for row in found if row is not None]


def _mean(runs: dict[str, dict], name: str) -> float | None:
    """None where the class is neither annotated nor predicted."""
    values = _values(runs, name)
    return fmean(values) if values else None


def _differences(row: dict[str, float | None]) -> dict[str, float | None]:
    """Of the other lines to the first."""
    first, *_ = row.values()
    return {
        line: None if None in (first, value) else value - first  # type: ignore[operator]
        for line, value in list(row.items())[1:]
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
    """Dots with the range of a line's runs, and bars of the differences."""
    lines = list(scores)
    height = 0.22 * len(rows) + 1.4
    figure = Figure(figsize=(10, height), layout='constrained')
    left, *right = figure.subplots(1, min(len(lines), 2), sharey=True, squeeze=False)[0]
    places = range(len(rows))
    for number, line in enumerate(lines):
        colour = f'C{number}'
        every = [_values(scores[line], name) for name in rows]
        known = [(place, values) for place, values in enumerate(every) if values]
        at = [place for place, _ in known]
        means = [fmean(values) for _, values in known]
        low, high = ([end(values) for _, values in known] for end in (min, max))
        left.hlines(at, low, high, color=colour)
        left.plot(means, at, 'o', color=colour, markersize=5, label=line)
        if number:
            gains = [_differences(row)[line] or 0.0 for row in rows.values()]
            thickness = 0.8 / (len(lines) - 1)
            shifted = [place - 0.4 + (number - 0.5) * thickness for place in places]
            right[0].barh(shifted, gains, thickness, color=colour)
    left.set_yticks(places, [name.strip() for name in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set(xlabel='IoU, %', xlim=(-2, 102))
    left.grid(alpha=0.3)
    for axis in right:
        axis.set_xlabel(f'difference to {lines[0]}')
        axis.axvline(0, color='black', lw=0.8)
        axis.grid(axis='x', alpha=0.3)
        axis.tick_params(axis='y', length=0)
    figure.legend(loc='outside upper left', ncols=len(lines), frameon=False)
    figure.supxlabel(source, fontsize=8)
    figure.savefig(path, dpi=110)
