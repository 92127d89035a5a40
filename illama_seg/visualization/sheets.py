"""Sheets of images and segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from illama_seg.visualization.overlays import Palette, colourise

_SHEET_WIDTH = 16.0  # inches


def draw_rows(
    rows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]],
    classes: Sequence[str],
    palette: Palette,
    path: str | Path,
) -> None:
    """Draw rows of image | ground truth | prediction with the names of the classes.

    Args:
        rows: image (H, W, 3) RGB, labels (H, W), predictions (H, W), caption.
        classes: names of the classes.
        palette: RGB colour of each class.
        path: image to write.
    """
    height, width = rows[0][0].shape[:2]
    row_height = 3.6 * height / width
    figure = Figure(figsize=(13.6, row_height * len(rows) + 0.5), layout='constrained')
    axes = figure.subplots(len(rows), 3, squeeze=False)
    present: set[int] = set()
    for row, (image, truth, guess, caption) in zip(axes, rows, strict=True):
        present |= set(np.unique(truth).tolist()) | set(np.unique(guess).tolist())
        shown = np.where(truth == 255, 255, guess)
        for axis, cell in zip(
            row,
            (image, colourise(truth, palette), colourise(shown, palette)),
            strict=True,
        ):
            axis.imshow(cell, interpolation='nearest')
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(caption, fontsize=8)
    titles = ('image', 'ground truth (black: not annotated)', 'prediction')
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    patches = [
        Patch(facecolor=_hex(palette[number]), label=classes[number])
        for number in sorted(present - {255})
    ]
    figure.legend(handles=patches, loc='outside right upper', fontsize=9, frameon=False)
    figure.savefig(path, dpi=100)


def draw_sheet(
    rows: Sequence[Sequence[tuple[np.ndarray, str]]],
    entries: Sequence[tuple[str, Sequence[int]]],
    path: str | Path,
    title: str = '',
) -> None:
    """Draw a sheet of images with captions and a legend below.

    Args:
        rows: images (H, W, 3) RGB with their captions; rows may differ in length.
        entries: name and RGB colour of each entry of the legend.
        path: image to write.
        title: title of the sheet.
    """
    columns = max(len(row) for row in rows)
    cell = _SHEET_WIDTH / columns
    highest = [max(p.shape[0] / p.shape[1] for p, _ in row) * cell for row in rows]
    longest = max((len(name) for name, _ in entries), default=1)
    per_line = max(int(_SHEET_WIDTH / (0.45 + 0.085 * longest)), 1)
    lines = -(-len(entries) // per_line)
    heights = [*(height + 0.3 for height in highest), 0.26 * lines + 0.25]
    figure = Figure(figsize=(_SHEET_WIDTH, sum(heights) + 0.35), layout='constrained')
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, row in enumerate(rows):
        for j, (image, caption) in enumerate(row):
            axis = figure.add_subplot(grid[i, j])
            axis.imshow(image, interpolation='antialiased')
            axis.set_title(caption, fontsize=8, pad=3)
            axis.set_axis_off()
    legend = figure.add_subplot(grid[-1, :])
    legend.set_axis_off()
    patches = [Patch(facecolor=_hex(colour), label=name) for name, colour in entries]
    legend.legend(
        handles=patches, ncols=per_line, fontsize=9, frameon=False, loc='upper center'
    )
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=100)


def _hex(colour: Sequence[int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)
