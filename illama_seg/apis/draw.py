"""Pictures of segmentations and of runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

Palette = Sequence[Sequence[int]]
# Scalar of a validation -> title, and what mmengine counts its steps in.
METRICS = {'mIoU': ('mIoU', 'iteration'), 'accuracy/top1': ('top-1', 'epoch')}
_SHEET_WIDTH = 16.0  # inches


def overlay(
    image: np.ndarray, labels: np.ndarray, palette: Palette, opacity: float = 0.5
) -> np.ndarray:
    """Paint class colours over an image.

    Args:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W), class numbers; 255 stays unpainted.
        palette: RGB colour of each class.
        opacity: of the paint, in [0, 1].

    Returns:
        (H, W, 3) uint8, BGR.
    """
    paint = colourise(labels, palette)[..., ::-1]
    mixed = cv2.addWeighted(image, 1 - opacity, paint, opacity, 0)
    return np.where((labels == 255)[..., None], image, mixed)


def colourise(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """(H, W) class numbers -> (H, W, 3) uint8, RGB; 255 is black."""
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(palette)] = np.asarray(palette, np.uint8)
    return colours[labels]


def add_legend(
    image: np.ndarray, labels: np.ndarray, classes: Sequence[str], palette: Palette
) -> np.ndarray:
    """Name the classes of ``labels``, largest first, in a strip below the image.

    Args and returns as :func:`overlay`; the strip makes the result higher.
    """
    numbers, counts = np.unique(labels[labels != 255], return_counts=True)
    font, line = cv2.FONT_HERSHEY_SIMPLEX, 1
    names = [classes[number].strip() for number in numbers]
    widths = [cv2.getTextSize(name, font, 0.45, line)[0][0] + 30 for name in names]
    # Readable on a large picture, and no name cut off by a small one's edge.
    scale = max(image.shape[1] / 1000, 1.0)
    scale = min([scale, *(image.shape[1] / width for width in widths)])
    room, row, x, cells = image.shape[1] / scale, 0, 0, []
    for i in np.argsort(-counts):
        if x and x + widths[i] > room:
            row, x = row + 1, 0
        cells.append((row, x, numbers[i], names[i]))
        x += widths[i]

    def at(*place: float) -> tuple[int, ...]:
        return tuple(round(scale * side) for side in place)

    strip = np.full((*at((row + 1) * 22), image.shape[1], 3), 255, np.uint8)
    for row, x, number, name in cells:
        y = row * 22
        colour = tuple(int(value) for value in palette[number][::-1])
        cv2.rectangle(strip, at(x + 4, y + 5), at(x + 18, y + 17), colour, -1)
        place = at(x + 22, y + 16)
        line = max(round(scale), 1)
        cv2.putText(
            strip, name, place, font, 0.45 * scale, (0, 0, 0), line, cv2.LINE_AA
        )
    return np.vstack([image, strip])


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
        path: picture to write.
    """
    height, width = rows[0][0].shape[:2]
    row_height = 3.6 * height / width
    figure = Figure(figsize=(13.6, row_height * len(rows) + 0.5), layout='constrained')
    axes = figure.subplots(len(rows), 3, squeeze=False)
    present: set[int] = set()
    for line, (image, truth, guess, caption) in zip(axes, rows, strict=True):
        present |= set(np.unique(truth).tolist()) | set(np.unique(guess).tolist())
        shown = np.where(truth == 255, 255, guess)
        for axis, picture in zip(
            line,
            (image, colourise(truth, palette), colourise(shown, palette)),
            strict=True,
        ):
            axis.imshow(picture, interpolation='nearest')
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(caption, fontsize=8)
    titles = ('image', 'ground truth (black: not annotated)', 'prediction')
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11)
    patches = [
        Patch(facecolor=_hex(palette[number]), label=classes[number])
        for number in sorted(present - {255})
    ]
    figure.legend(handles=patches, loc='outside right upper', fontsize=9, frameon=False)
    figure.savefig(path, dpi=100)


def side_by_side(image: np.ndarray, labels: np.ndarray, palette: Palette) -> np.ndarray:
    """An image beside itself with its labels painted over; what is ignored is dark.

    Args:
        image: (H, W, 3) uint8, BGR.
        labels: (H, W), class numbers or 255.
        palette: RGB colour of each class.

    Returns:
        (H, 2 W + gap, 3) uint8, RGB.
    """
    painted = overlay(image, labels, palette, 0.6)
    painted[labels == 255] = image[labels == 255] // 4
    gap = np.full((len(image), max(image.shape[1] // 60, 1), 3), 255, np.uint8)
    return np.hstack([image, gap, painted])[..., ::-1]


def draw_sheet(
    rows: Sequence[Sequence[tuple[np.ndarray, str]]],
    entries: Sequence[tuple[str, Sequence[int]]],
    path: str | Path,
    title: str = '',
) -> None:
    """Draw a sheet of pictures with captions and a legend below them.

    Args:
        rows: of pictures (H, W, 3) RGB with a caption each; a row may be short.
        entries: name and RGB colour of each entry of the legend.
        path: picture to write.
        title: what stands on top.
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
        for j, (picture, caption) in enumerate(row):
            axis = figure.add_subplot(grid[i, j])
            axis.imshow(picture, interpolation='antialiased')
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


def read_scalars(files: Sequence[str | Path]) -> dict[str, list[list[float]]]:
    """Curves of a run, as mmengine logs them.

    Args:
        files: ``scalars.json``, a JSON object a line, one file for each time that the
            run was started, in order; later ones win.

    Returns:
        Name of a scalar -> ``[[step, value], ...]``.
    """
    values: dict[str, dict[int, float]] = {}
    for file in files:
        for line in filter(None, Path(file).read_text().splitlines()):
            try:
                row = json.loads(line)
            except ValueError:  # cut off, by a kill or a full disk
                continue
            for key in row.keys() - {'step'}:
                values.setdefault(key, {})[row['step']] = row[key]
    return {
        key: [[step, points[step]] for step in sorted(points)]
        for key, points in values.items()
    }


def draw_curves(scalars: Sequence[str | Path], path: str | Path) -> dict:
    """Draw the loss of a run and its mIoU, or of a classification its top-1 accuracy.

    Args:
        scalars: the files ``scalars.json`` that mmengine writes, a JSON object a
            line, one file for each time that the run was started; later ones win.
        path: picture to write.

    Returns:
        ``dict(loss=[[iteration, loss], ...], mIoU=[[iteration, percent], ...])``, or
        in place of the mIoU ``'accuracy/top1': [[epoch, percent], ...]``.
    """
    found = read_scalars(scalars)
    metric = next((key for key in METRICS if key in found), 'mIoU')
    curves = {key: found.get(key, []) for key in ('loss', metric)}
    figure = Figure(figsize=(9, 3.4), layout='constrained')
    for axis, (key, points) in zip(figure.subplots(1, 2), curves.items(), strict=True):
        title, unit = METRICS.get(key, ('', 'iteration'))
        if points:
            axis.plot(*zip(*points, strict=True), marker='.' if title else None)
        axis.set_xlabel(unit)
        axis.set_title(f'validation {title} (%)' if title else 'training loss')
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    return curves
