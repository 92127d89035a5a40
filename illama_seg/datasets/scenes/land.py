"""Background of a scene: the ground, the sky and mountains."""

from collections.abc import Callable

import cv2
import numpy as np

from illama_seg.datasets.scenes.canvas import SCENE_IDS, Scene
from illama_seg.datasets.scenes.colours import Array, hsv, noise, stone, tint


def _grass(c: Scene) -> Array:
    base = hsv(c.grass_hue, c.rng.uniform(0.3, 0.65), c.rng.uniform(0.35, 0.6))
    blades = noise(c.rng, c.Z.shape, 3, 2) * np.clip(12 / c.Z, 0.3, 1)
    return tint(1 + 0.14 * c.grain(30) + 0.13 * blades, base)


def _field(c: Scene) -> Array:
    """Crop rows that run to the vanishing point."""
    soil = hsv(c.rng.uniform(0.06, 0.1), 0.45, c.rng.uniform(0.25, 0.5))
    crop = hsv(c.rng.uniform(0.1, 0.33), c.rng.uniform(0.4, 0.7), 0.6)
    pitch, slant = c.rng.uniform(1.0, 2.0), c.rng.uniform(-0.5, 0.5)
    row = np.sin((c.X + slant * c.Z + 0.1 * c.grain(8)) * 2 * np.pi / pitch)
    sharp = np.clip(pitch * c.focal / c.Z / 10, 0, 1)
    mix = 0.5 + np.clip(row * 1.6, -0.5, 0.5) * sharp
    tone = 1 + 0.1 * c.grain(6)
    return tint(tone, soil) + tint(tone * mix, crop - soil)


def _road(c: Scene) -> Array:
    base = stone(c.rng) * c.rng.uniform(0.55, 0.95)
    speck = noise(c.rng, c.Z.shape, 2, 1)
    return tint(1 + 0.06 * c.grain(14) + 0.05 * speck, base)


def _sidewalk(c: Scene) -> Array:
    base, slab = stone(c.rng), c.rng.uniform(0.8, 1.4)
    x, z = c.X / slab, np.minimum(c.Z, 99) / slab
    i, j = np.floor(x), np.floor(z)
    thick = np.maximum(0.06, 1.2 * c.Z / c.focal) / slab
    deep = np.maximum(0.06, 1.2 * c.Z**2 / c.focal / c.eye) / slab
    joint = (x - i < thick) | ((z - j < deep) & (deep < 0.5))
    tone = c.rng.normal(1, 0.07, 64)[np.int32(i * 7 + j * 13) % 64]
    return tint((tone - 0.3 * joint) * (1 + 0.04 * c.grain(5)), base)


def _water(c: Scene) -> Array:
    """The backdrop upside down, broken by ripples that flatten with distance."""
    depth = c.ys[c.low :] - c.horizon
    ripple = noise(c.rng, (len(depth), c.w // 6), 4, 2)
    wave = cv2.resize(ripple, (c.w, len(depth))) * (0.25 + depth / c.h)
    rows = np.clip(c.horizon - depth * 0.8 + wave * 14, 0, c.horizon - 1)
    mirror = cv2.remap(c.rgb, c.xs[c.low :], rows, cv2.INTER_LINEAR)
    colour = hsv(c.rng.uniform(0.4, 0.62), 0.5, c.rng.uniform(0.15, 0.45))
    k = c.rng.uniform(0.55, 0.85)
    glint = 1 + 0.16 * np.tanh(wave * 2)
    out = mirror * cv2.merge([glint, glint, glint]) * np.float32(k)
    out += tint(glint, colour * (1 - k))
    return out / np.maximum(c.light, 0.3)


_GROUND: dict[str, Callable[[Scene], Array]] = {
    'grass': _grass,
    'field': _field,
    'road': _road,
    'sidewalk': _sidewalk,
    'water': _water,
}


def lay(c: Scene, name: str, where: Array) -> None:
    """Cover the ground with a texture where the mask says."""
    c.paint(where, _GROUND[name](c), name, c.Z, np.s_[c.low :])


def backdrop(c: Scene, mountains: float) -> None:
    """Sky with clouds and, with the given chance, layers of mountains."""
    rng = c.rng
    sky = c.rgb[: c.low]
    t = c.ys[: c.low] / c.horizon
    cloud = cv2.resize(noise(rng, (c.low, c.w // 2), 60, 5), (c.w, c.low))
    cover = np.clip(cloud * 0.5 + float(rng.uniform(-0.9, 0.5)), 0, 1) * (1 - 0.5 * t)
    sx, sy = c.w * (0.5 + 0.45 * c.side), c.horizon * float(rng.uniform(0.1, 0.9))
    glow = np.exp(np.hypot(c.xs - sx, c.ys - sy)[: c.low] / (-0.12 * c.w))
    sky[:] = tint((1 - t) * (1 - cover), c.top) + tint(t * (1 - cover), c.foot)
    sky += tint(cover * 0.93 + glow * 0.35 * c.sun, c.light)
    c.label[:] = SCENE_IDS['sky']
    if rng.random() >= mountains:
        return
    layers = rng.integers(1, 4)
    rock = hsv(rng.choice([0.08, 0.3, 0.6]), rng.uniform(0.1, 0.45), 0.45)
    snow = rng.uniform(0, 0.35) if rng.random() < 0.5 else -1.0
    for k in range(layers):
        rise = c.h * rng.uniform(0.12, 0.32) * (1 - 0.3 * k)
        ridge = rise * (0.6 + 0.28 * noise(rng, (1, c.w), c.w / 3, 6)[0])
        rows = c.ys[: c.low]
        where = rows > c.horizon - ridge
        relief = noise(rng, (c.low, c.w), 40, 5)
        slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=0.25) * c.side
        high = (c.horizon - rows) / rise + 0.1 * relief
        white = (high > 1 - snow) & (snow > 0)
        shade = np.clip(1 + 0.6 * slope, 0.4, 1.5)
        rgb = tint(shade * ~white, rock) + tint(shade * white, np.full(3, 0.85))
        c.paint(where, rgb, 'mountain', 0.7 * c.sight * 0.5**k, np.s_[: c.low])
