"""Random colours, noise and tones."""

import colorsys
from typing import Any

import cv2
import numpy as np

Rng = np.random.Generator
Array = np.ndarray[Any, np.dtype[Any]]


def hsv(h: float, s: float, v: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32)


def any_colour(rng: Rng) -> Array:
    return hsv(rng.random(), 0.85 * rng.beta(1.1, 1.6), rng.uniform(0.2, 0.95))


def stone(rng: Rng) -> Array:
    return hsv(rng.uniform(0.0, 0.16), rng.beta(1.2, 4), rng.uniform(0.3, 0.8))


def noise(rng: Rng, shape: Any, cell: float, octaves: int = 3) -> Array:
    """Fractal noise of about unit variance; `cell` is its coarsest grain in pixels."""
    h, w = shape
    out = np.zeros((h, w), np.float32)
    for k in range(octaves):
        c = max(cell / 2**k, 1)
        grid = rng.standard_normal((int(h / c) + 2, int(w / c) + 2), np.float32)
        out += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) / 1.6**k
    return out


def tint(tone: Array, colour: Array) -> Array:
    """A colour in many tones: (H, W) and (3,) to (H, W, 3)."""
    column = np.asarray(colour, np.float32)[:, None]
    return cv2.transform(np.asarray(tone, np.float32), column)
