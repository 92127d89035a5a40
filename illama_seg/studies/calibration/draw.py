"""Reliability diagrams with the histogram of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure, SubFigure

ROWS = (('before', 'unchanged'), ('after', 'after temperature scaling'))


def draw_calibration(models: Sequence[dict], path: str | Path) -> None:
    """Draw a column for each model, unchanged and after temperature scaling.

    Args:
        models: ``models`` of :func:`illama_seg.studies.measure_calibration`.
        path: image to write.
    """
    figure = Figure(figsize=(max(3.6 * len(models), 5.0), 9.6), layout='constrained')
    cells = figure.subfigures(len(ROWS), len(models), squeeze=False)
    for row, (kind, label) in zip(cells, ROWS, strict=True):
        for cell, model in zip(row, models, strict=True):
            title = f'{model["name"]}\n{label}'
            if kind == 'after':
                title += f', T = {model["temperature"]:.2f}'
            _draw(cell, model[kind], title)
    figure.savefig(path, dpi=130)


def _draw(cell: SubFigure, scores: dict, title: str) -> None:
    above, below = cell.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    bins, total = scores['diagram'], max(scores['samples'], 1)
    width = bins[0]['high'] - bins[0]['low']
    left = [row['low'] for row in bins]
    above.bar(
        left,
        [100 * row['samples'] / total for row in bins],
        width,
        align='edge',
        color='#9ecae1',
        edgecolor='white',
    )
    above.set_ylabel('% of samples', fontsize=9)
    above.set_title(title, fontsize=10)
    for name, colour in (('accuracy', '#08519c'), ('confidence', '#cb181d')):
        if scores[name] is not None:
            above.axvline(scores[name], color=colour, linestyle='--', label=name)
    above.legend(fontsize=7, loc='best', frameon=False)
    for row in bins:
        if not row['samples']:
            continue
        low, high = sorted((row['accuracy'], row['confidence']))
        below.bar(
            row['low'],
            row['accuracy'],
            width,
            align='edge',
            color='#4292c6',
            edgecolor='white',
        )
        below.bar(
            row['low'],
            high - low,
            width,
            bottom=low,
            align='edge',
            color='#cb181d22',
            edgecolor='#cb181d',
            hatch='//',
            linewidth=0.6,
        )
    below.plot([0, 1], [0, 1], color='grey', linestyle=':')
    below.set(xlim=(0, 1), ylim=(0, 1), xlabel='confidence', ylabel='accuracy')
    if scores['ece'] is not None:
        below.text(
            0.04,
            0.95,
            f'ECE {scores["ece"]:.4f}\nNLL {scores["nll"]:.3f}',
            va='top',
            fontsize=10,
        )
