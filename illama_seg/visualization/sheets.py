"""Sheets of images and segmentations."""

from collections.abc import Iterable, Sequence
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
    cells, present = [], set()
    for image, truth, guess, caption in rows:
        present |= {*np.unique(truth).tolist(), *np.unique(guess).tolist()}
        shown = np.where(truth == 255, 255, guess)
        cells.append(
            [
                (image, caption),
                (colourise(truth, palette), 'ground truth (black: not annotated)'),
                (colourise(shown, palette), 'prediction'),
            ]
        )
    draw_sheet(cells, class_entries(present, classes, palette), path)


def class_entries(
    present: Iterable[int], classes: Sequence[str], palette: Palette
) -> list[tuple[str, tuple[int, ...]]]:
    """List name and colour of the classes present for a legend, without 255."""
    numbers = sorted(number for number in present if number < len(classes))
    return [(classes[n].strip(), tuple(palette[n])) for n in numbers]


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
