"""An image that is segmented while its rows arrive, as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from illama_seg.files import atomic
from illama_seg.visualization.overlays import overlay

FRAMES = 48  # at most
MILLISECONDS, LAST_MILLISECONDS = 120, 2500  # of a frame
MISSING = 235  # grey of rows that are not there yet
COLOURS = 64  # of the animation, which has to stay small


def animate_stream(
    path: Path,
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    bands: Sequence[Any],
) -> None:
    """Write a GIF: rows arriving, and latency and memory of each band beside them.

    Args:
        path: file to write.
        image: (H, W, 3) uint8, BGR.
        labels: (H, W) uint8, class numbers.
        palette: RGB colour of each class.
        bands: with ``rows``, ``seconds`` and ``kept_bytes`` of each, see ``Band``.
    """
    painted = overlay(image, labels, palette, 0.6)
    shown = np.linspace(0, len(bands), min(len(bands), FRAMES - 1) + 1)
    frames = [
        _frame(image, painted, bands, count) for count in shown.round().astype(int)
    ]
    waits = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    first, *others = frames
    with atomic(path) as part:
        first.save(part, save_all=True, append_images=others, duration=waits, loop=0)


def _frame(
    image: np.ndarray, painted: np.ndarray, bands: Sequence[Any], count: int
) -> Image.Image:
    """Draw what is known after so many bands."""
    given = bands[count - 1].rows if count else 0
    arrived = bands[min(count, len(bands) - 1)].rows
    picture = np.full_like(image, MISSING)
    picture[given:arrived] = image[given:arrived]
    picture[:given] = painted[:given]
    figure = plt.figure(figsize=(6.4, 3.0), dpi=100)
    left = figure.add_axes((0.02, 0.04, 0.52, 0.86))
    left.imshow(picture[..., ::-1], interpolation='nearest')
    left.axhline(given - 0.5, color='black', linewidth=0.8)
    left.set_ylim(len(image) - 0.5, -0.5)
    left.set_axis_off()
    left.set_title(f'{given} of {len(image)} rows labelled', fontsize=9)
    numbers = np.arange(1, len(bands) + 1)
    panels = {
        'ms after a band has arrived': [1e3 * band.seconds for band in bands],
        'MiB of keys and values kept': [band.kept_bytes / 2**20 for band in bands],
    }
    for place, (title, values) in enumerate(panels.items()):
        axis = figure.add_axes((0.63, 0.58 - 0.45 * place, 0.35, 0.31))
        axis.plot(numbers[:count], values[:count], color='tab:blue')
        axis.set_xlim(1, len(bands))
        axis.set_ylim(0, 1.25 * max(values))
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
    axis.set_xlabel('bands', fontsize=8)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
    plt.close(figure)
    return Image.fromarray(pixels).quantize(COLOURS, dither=Image.Dither.NONE)
