"""Logged curves of a training."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Scalar of a validation -> its title, and the unit of mmengine's steps.
METRICS = {'mIoU': ('mIoU', 'iteration'), 'accuracy/top1': ('top-1', 'epoch')}


def read_scalars(files: Sequence[str | Path]) -> dict[str, list[list[float]]]:
    """Read the curves of a run that mmengine logged.

    Args:
        files: files ``scalars.json`` with a JSON object on each line, one file for each
            start of the run, in order; later values replace earlier ones.

    Returns:
        Name of a scalar -> ``[[step, value], ...]``.
    """
    values: dict[str, dict[int, float]] = {}
    for file in files:
        for line in filter(None, Path(file).read_text().splitlines()):
            try:
                row = json.loads(line)
            except ValueError:  # truncated by a kill or a full disk
                continue
            for key in row.keys() - {'step'}:
                values.setdefault(key, {})[row['step']] = row[key]
    return {
        key: [[step, points[step]] for step in sorted(points)]
        for key, points in values.items()
    }


def draw_curves(scalars: Sequence[str | Path], path: str | Path) -> dict:
    """Draw the loss and the mIoU of a run, or the top-1 accuracy of a classification.

    Args:
        scalars: see :func:`read_scalars`.
        path: image to write.

    Returns:
        ``dict(loss=[[iteration, loss], ...], mIoU=[[iteration, percent], ...])``; a
        classification has ``'accuracy/top1': [[epoch, percent], ...]`` instead of mIoU.
    """
    logged = read_scalars(scalars)
    metric = next((key for key in METRICS if key in logged), 'mIoU')
    curves = {key: logged.get(key, []) for key in ('loss', metric)}
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


def draw_mean(axis: Axes, places: Sequence, columns: Iterable, **style: Any) -> None:
    """Draw the mean of the values at each place, and their range as a band."""
    means, low, high = zip(*((fmean(c), min(c), max(c)) for c in columns), strict=True)
    (line,) = axis.plot(places, means, **style)
    axis.fill_between(places, low, high, color=line.get_color(), alpha=0.15, lw=0)
