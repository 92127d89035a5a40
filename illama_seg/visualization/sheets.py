"""Sheets of images and segmentations."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from illama_seg.visualization.overlays import Palette, colourise

_SHEET_WIDTH = 16.0  # inches
# Points. The page of a run shows a sheet at six tenths of its size, 960 pixels wide:
# these letters have 13 pixels there.
_FONT = 16
_LETTER, _LINE = 0.6 * _FONT / 72, 1.4 * _FONT / 72  # inches


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
    captions = [[_wrapped(text, cell) for _, text in row] for row in rows]
    # constrained_layout gives the rows these heights and adds the captions' own.
    heights = [max(p.shape[0] / p.shape[1] for p, _ in row) * cell for row in rows]
    above = sum(max(text.count('\n') + 1 for text in texts) for texts in captions)
    longest = max((len(name) for name, _ in entries), default=1)
    per_line = max(int(_SHEET_WIDTH / (5 * _FONT / 72 + _LETTER * longest)), 1)
    lines = -(-len(entries) // per_line)
    heights.append(_LINE * lines + 0.2)
    title = _wrapped(title, _SHEET_WIDTH)
    above += title.count('\n') + 1 if title else 0
    height = sum(heights) + _LINE * above + 0.2 * len(heights)
    figure = Figure(figsize=(_SHEET_WIDTH, height))
    figure.set_layout_engine('constrained', h_pad=0.08)  # inches
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, row in enumerate(rows):
        for j, (image, _) in enumerate(row):
            axis = figure.add_subplot(grid[i, j])
            axis.imshow(image, interpolation='antialiased')
            axis.set_title(captions[i][j], fontsize=_FONT, pad=4)
            axis.set_axis_off()
    legend = figure.add_subplot(grid[-1, :])
    legend.set_axis_off()
    patches = [Patch(facecolor=_hex(colour), label=name) for name, colour in entries]
    legend.legend(
        handles=patches,
        ncols=per_line,
        fontsize=_FONT,
        frameon=False,
        loc='upper center',
    )
    figure.suptitle(title, fontsize=_FONT)
    figure.savefig(path, dpi=100)


def _wrapped(text: str, width: float) -> str:
    """Break lines that are longer than ``width`` inches."""
    letters = max(int(width / _LETTER) - 1, 8)
    lines = (textwrap.wrap(line, letters) or [''] for line in text.split('\n'))
    return '\n'.join(part for parts in lines for part in parts)


def _hex(colour: Sequence[int]) -> str:
    return '#{:02x}{:02x}{:02x}'.format(*colour)
