"""Reliability diagrams with the histogram of confidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure, SubFigure

ROWS = (('before', 'unchanged'), ('after', 'after temperature scaling'))
GAP: dict[str, Any] = dict(color='#cb181d22', edgecolor='#cb181d', hatch='//', lw=0.6)


def draw_calibration(models: Sequence[dict], path: str | Path) -> None:
    """Draw a column for each of the study's models, unchanged and scaled."""
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
    edge: dict[str, Any] = dict(width=bins[0]['high'] - bins[0]['low'], align='edge')
    for row in bins:
        share = 100 * row['samples'] / total
        above.bar(row['low'], share, color='#9ecae1', edgecolor='white', **edge)
        if row['samples']:
            accuracy, gap = row['accuracy'], row['confidence'] - row['accuracy']
            below.bar(row['low'], accuracy, color='#4292c6', edgecolor='white', **edge)
            below.bar(row['low'], gap, bottom=accuracy, **GAP, **edge)
    above.set_ylabel('% of samples', fontsize=9)
    above.set_title(title, fontsize=10)
    for name, colour in (('accuracy', '#08519c'), ('confidence', '#cb181d')):
        if scores[name] is not None:
            above.axvline(scores[name], color=colour, linestyle='--', label=name)
    above.legend(fontsize=7, loc='best', frameon=False)
    below.plot([0, 1], [0, 1], color='grey', linestyle=':')
    below.set(xlim=(0, 1), ylim=(0, 1), xlabel='confidence', ylabel='accuracy')
    if scores['ece'] is not None:
        text = f'ECE {scores["ece"]:.4f}\nNLL {scores["nll"]:.3f}'
        below.text(0.04, 0.95, text, va='top', fontsize=10)
