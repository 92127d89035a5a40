"""Drawing of a confusion matrix that is readable with 150 classes."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from illama_seg.evaluation import ConfusionMatrix

CELL = 0.1  # inches, minimum for a class's name
LISTED = 25


def draw_confusion(matrix: ConfusionMatrix, path: str | Path) -> dict:
    """Draw the shares of each annotated class and list the most confused pairs.

    Only classes that occur are drawn, in their own order. The colours show the square
    root of the share, so that 1 % is visible.

    Args:
        matrix: counts of a data set.
        path: image to write.

    Returns:
        ``dict(by_pixels=[...], by_share=[...])``, the lists beside the matrix, from
        :meth:`ConfusionMatrix.most_confused`.
    """
    pairs = dict(
        by_pixels=matrix.most_confused(LISTED),
        by_share=matrix.most_confused(LISTED, 'share'),
    )
    rows, columns = matrix.counts.sum(1), matrix.counts.sum(0)
    present = np.flatnonzero(rows + columns)
    if not len(present):
        present = np.arange(len(matrix.classes))
    counts = matrix.counts[np.ix_(present, present)]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shares[rows[present] == 0] = np.nan  # predicted, but never annotated
    side = max(6.5, CELL * len(present))
    text = '\n\n'.join(
        _listing(title, listed)
        for title, listed in (
            ('most pixels', pairs['by_pixels']),
            ('largest share of the class', pairs['by_share']),
        )
    )
    # Inches beside the matrix; a character of 8 points is 0.067 wide.
    names, lists = 1.7, 0.067 * max(map(len, text.splitlines())) + 0.1
    width, height = side + names + 0.9 + lists, side + names + 0.6
    figure = Figure(figsize=(width, height))
    box = (names / width, names / height, side / width, side / height)
    axes = figure.add_axes(box)
    shown = axes.imshow(np.sqrt(shares), cmap='Blues', vmin=0, vmax=10, aspect='auto')
    _name(axes, [matrix.classes[number].strip() for number in present], side)
    if len(present) <= 20:
        for row, column in np.argwhere(~np.isnan(shares)):
            axes.text(
                column,
                row,
                f'{shares[row, column]:.0f}',
                color='white' if shares[row, column] > 35 else 'black',
                ha='center',
                va='center',
                fontsize=8,
            )
    bar_box = ((names + side + 0.15) / width, box[1], 0.18 / width, box[3])
    ticks = np.array([0, 1, 5, 10, 25, 50, 75, 100])
    bar = figure.colorbar(shown, cax=figure.add_axes(bar_box), ticks=np.sqrt(ticks))
    bar.ax.set_yticklabels([f'{tick} %' for tick in ticks], fontsize=8)
    summary = matrix.summary()
    axes.set_title(
        f'share of each annotated class; mIoU {summary["mIoU"]:.1f}, pixel accuracy '
        f'{summary["aAcc"]:.1f}',
        fontsize=11,
    )
    left = (names + side + 0.9) / width
    figure.text(left, box[1] + box[3], text, va='top', fontsize=8, family='monospace')
    figure.savefig(path, dpi=130)
    return pairs


def _name(axes: Axes, names: list[str], side: float) -> None:
    size = min(9, 72 * side / max(len(names), 1) * 0.8)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=2, pad=1)
    axes.set_xlabel('predicted', fontsize=10)
    axes.set_ylabel('annotated', fontsize=10)


def _listing(title: str, pairs: list[dict]) -> str:
    lines = [f'CONFUSED MOST: {title}', ' share       pixels  annotated -> predicted']
    for pair in pairs:
        names = f'{pair["annotated"].strip()} -> {pair["predicted"].strip()}'
        lines.append(f'{pair["share"]:5.1f} %{pair["pixels"]:12,}  {names[:42]}')
    return '\n'.join(lines)
