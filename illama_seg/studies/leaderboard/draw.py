"""Drawing of a leaderboard: every seed, and scores beside costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw_board(rows: Sequence[dict], path: Path) -> None:
    """Draw the mIoU of each seed with its mean, and the mean over the cost.

    Args:
        rows: ``models`` of ``leaderboard.json``.
        path: PNG to write.
    """
    figure = Figure(figsize=(11, 1.8 + 0.5 * len(rows)), layout='constrained')
    left, right = figure.subplots(1, 2)
    for place, row in enumerate(rows):
        colour, values = f'C{place}', row['mIoU']
        left.plot(values, [place] * len(values), 'o', color=colour, alpha=0.5)
        left.plot(row['mean'], place, '|', color=colour, markersize=22, mew=2.5)
        cost = row['multiply_accumulates'] / 1e9
        right.plot(cost, row['mean'], 'o', color=colour, markersize=8)
        right.annotate(
            row['name'],
            (cost, row['mean']),
            xytext=(0, 8),
            textcoords='offset points',
            ha='center',
            fontsize=8,
        )
    left.set_yticks(range(len(rows)), [row['name'] for row in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set(xlabel='mIoU, %; dots are seeds')
    right.set(xlabel='G multiply-accumulates', ylabel='mIoU, %')
    right.margins(0.25)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=110)
