"""Read and draw the logged curves of a training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

# Scalar of a validation -> title, and what mmengine counts its steps in.
METRICS = {'mIoU': ('mIoU', 'iteration'), 'accuracy/top1': ('top-1', 'epoch')}


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
