"""Surfaces and contours of the loss around a model's weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

NUM_LEVELS = 18


def draw_loss_landscape(models: Sequence[dict], path: str | Path) -> None:
    """Draw a column for each of the study's models, surface above contours."""
    grids = [np.array(model['loss'], float) for model in models]  # None is nan
    lowest = max(min(float(np.nanmin(grid)) for grid in grids), 1e-6)
    highest = max(max(float(np.nanmax(grid)) for grid in grids), 1.01 * lowest)
    norm = LogNorm(lowest, highest)
    levels = np.geomspace(lowest, highest, NUM_LEVELS)
    width = max(4.2 * len(models), 5.0)
    figure = Figure(figsize=(width, 8), layout='constrained')
    for number, (model, grid) in enumerate(zip(models, grids, strict=True), 1):
        x, y = np.meshgrid(model['axis'], model['axis'])
        above: Any = figure.add_subplot(2, len(models), number, projection='3d')
        above.plot_surface(x, y, grid, cmap='viridis', norm=norm, rstride=1, cstride=1)
        above.set_zlim(0, highest)
        above.set_title(
            f'{model["name"]}\n{model["data"]}, {model["split"]}', fontsize=9
        )
        above.tick_params(labelsize=7)
        below = figure.add_subplot(2, len(models), len(models) + number)
        lines = below.contour(x, y, grid, levels, cmap='viridis', norm=norm)
        below.clabel(lines, levels[::3], fmt='%.2g', fontsize=7)
        below.plot(0, 0, 'r+')
        below.set_aspect('equal')
        below.tick_params(labelsize=7)
    figure.suptitle('loss, contours in equal ratios', fontsize=10)
    figure.savefig(path, dpi=110)
