"""Procedural outdoor scenes in ADE20K's layout, label ids and class names.

A scene is a ground plane seen by a pinhole camera: X metres to the right, Z metres
ahead, Y metres up.  Things are drawn from far to near, picture and label from the same
masks, on a canvas of twice the asked size, which is then reduced.
"""

import colorsys
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

SCENE_IDS = {
    'building': 2,
    'sky': 3,
    'tree': 5,
    'road': 7,
    'grass': 10,
    'sidewalk': 12,
    'person': 13,
    'mountain': 17,
    'car': 21,
    'water': 22,
    'house': 26,
    'field': 30,
    'fence': 33,
    'signboard': 44,
    'bus': 81,
}
SCENE_CLASSES = tuple(SCENE_IDS)
SPLITS = ('training', 'validation')
VERSION = 1
_SS = 2  # supersampling
_TURN = np.arange(18) * np.pi / 9
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)

Rng = np.random.Generator
Array = np.ndarray[Any, np.dtype[Any]]
Texture = Callable[[Array, Array], Array]

# top of the sky, its foot, colour of the light, strength of the sun
_SKIES = (
    ((0.22, 0.42, 0.80), (0.68, 0.82, 0.94), (1.05, 1.0, 0.94), 1.0),
    ((0.45, 0.62, 0.85), (0.85, 0.89, 0.92), (1.0, 0.98, 0.94), 0.8),
    ((0.58, 0.61, 0.66), (0.80, 0.81, 0.82), (0.84, 0.86, 0.88), 0.15),
    ((0.34, 0.36, 0.62), (0.98, 0.66, 0.38), (1.05, 0.80, 0.62), 0.9),
    ((0.75, 0.79, 0.84), (0.94, 0.92, 0.87), (0.96, 0.94, 0.88), 0.4),
    ((0.32, 0.36, 0.42), (0.64, 0.65, 0.65), (0.72, 0.75, 0.80), 0.15),
    ((0.26, 0.28, 0.48), (0.74, 0.55, 0.56), (0.76, 0.70, 0.80), 0.2),
)


def _hsv(h: float, s: float, v: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(h % 1, s, v), np.float32)


def _any_colour(rng: Rng) -> Array:
    return _hsv(rng.random(), 0.85 * rng.beta(1.1, 1.6), rng.uniform(0.2, 0.95))


def _stone(rng: Rng) -> Array:
    return _hsv(rng.uniform(0.0, 0.16), rng.beta(1.2, 4), rng.uniform(0.3, 0.8))


def _noise(rng: Rng, shape: Any, cell: float, octaves: int = 3) -> Array:
    """Fractal noise of about unit variance; `cell` is its coarsest grain in pixels."""
    h, w = shape
    out = np.zeros((h, w), np.float32)
    for k in range(octaves):
        c = max(cell / 2**k, 1)
        grid = rng.standard_normal((int(h / c) + 2, int(w / c) + 2), np.float32)
        out += cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC) / 1.6**k
    return out


def _tint(tone: Array, colour: Array) -> Array:
    """A colour in many tones: (H, W) and (3,) to (H, W, 3)."""
    column = np.asarray(colour, np.float32)[:, None]
    return cv2.transform(np.asarray(tone, np.float32), column)


class _Sprite:
    """A thing seen from the front; metres from its left foot, part 2 has no label."""

    def __init__(self, scale: float, width: float, height: float) -> None:
        self.scale, self.width, self.height = scale, width, height
        h, w = int(np.ceil(height * scale)) + 1, int(np.ceil(width * scale)) + 1
        self.rgb = np.zeros((h, w, 3), np.float32)
        self.part = np.zeros((h, w), np.uint8)

    def poly(self, points: Any, colour: Any, part: int = 1) -> None:
        xy = np.array(points, float)
        xy[:, 1] = self.height - xy[:, 1]
        pixels = np.round(xy * self.scale * 16).astype(np.int32)
        cv2.fillPoly(self.rgb, [pixels], [float(c) for c in colour], shift=4)
        cv2.fillPoly(self.part, [pixels], part, shift=4)

    def rect(self, x0: float, y0: float, x1: float, y1: float, *style: Any) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], *style)

    def disc(self, x: float, y: float, rx: float, ry: float, *style: Any) -> None:
        self.poly(_CIRCLE * (rx, ry) + (x, y), *style)


class _Scene:
    """Canvas, camera and light of one scene, and the queue of things to draw."""

    def __init__(self, rng: Rng, height: int, width: int) -> None:
        self.rng, self.h, self.w = rng, height * _SS, width * _SS
        self.rgb = np.zeros((self.h, self.w, 3), np.float32)
        self.label = np.zeros((self.h, self.w), np.uint8)
        self.focal = 1.3 * self.h
        self.eye = float(rng.uniform(1.9, 3.0))
        self.horizon = self.h * float(rng.uniform(0.36, 0.52))
        self.vx = self.w * float(rng.uniform(0.25, 0.75))
        self.xs, self.ys = np.meshgrid(
            np.arange(self.w, dtype=np.float32), np.arange(self.h, dtype=np.float32)
        )
        self.low = int(self.horizon) + 1  # first row of the ground
        self.Z = self.focal * self.eye / (self.ys[self.low :] - self.horizon)
        self.X = (self.xs[self.low :] - self.vx) * self.Z / self.focal
        top, foot, light, self.sun = _SKIES[rng.integers(len(_SKIES))]
        jitter = rng.normal(0, 0.04, (3, 3)).astype(np.float32)
        self.top, self.foot, self.light = jitter + np.array(
            (top, foot, light), np.float32
        )
        self.side = float(rng.choice([-1, 1]))  # the sun's side, -1 left
        self.sight = float(rng.uniform(60, 400))  # metres that haze leaves visible
        autumn = rng.random() < 0.3
        self.leaf_hue = rng.uniform(0.03, 0.16) if autumn else rng.uniform(0.2, 0.38)
        self.grass_hue = rng.uniform(0.12, 0.33)
        self.tile = _noise(rng, (256, 256), 64, 6)
        self.queue: list[tuple[float, Callable[[], None]]] = []
        self.shadow = np.zeros((self.h, self.w), np.uint8)

    def paint(self, where: Array, rgb: Array, name: str, depth: Any, at: Any) -> None:
        """Put lit, hazy colour and label where the mask says, in the window `at`."""
        haze: Array = np.asarray(1 - np.exp(-depth / self.sight), np.float32)
        if haze.ndim:
            lit: Array = cv2.transform(rgb, np.diag(self.light))
            away = cv2.transform(lit, np.column_stack([-np.eye(3), self.foot]))
            lit += away * cv2.merge([haze, haze, haze])
        else:
            matrix = np.diag(self.light * (1 - haze))
            lit = cv2.transform(rgb, np.column_stack([matrix, self.foot * haze]))
        self.rgb[at][where] = lit[where]
        self.label[at][where] = SCENE_IDS.get(name, 0)

    def grain(self, metres: float) -> Array:
        """Noise that lies on the ground, one tile to `metres`."""
        k = np.float32(256 / metres)
        far = cv2.BORDER_REFLECT_101
        x, z = self.X * k, self.Z * k
        return cv2.remap(self.tile, x, z, cv2.INTER_LINEAR, borderMode=far)

    def lay(self, name: str, where: Array) -> None:
        self.paint(where, _GROUND[name](self), name, self.Z, np.s_[self.low :])

    def place(self, painter: Any, x: float, z: float, order: float = 0) -> None:
        """Queue a painter's sprite at (x, z); `order` moves it back in the queue."""
        scale = self.focal / z
        sprite = painter(self.rng, scale, self)
        name = painter.__name__.lstrip('_').split('_')[0]
        px, py = self.vx + x * scale, self.horizon + self.eye * scale
        at = int(min(py, self.h - 1)), int(np.clip(px, 0, self.w - 1))
        if self.label[at] == SCENE_IDS['water']:
            return
        self.cast(px, py, sprite.width * scale, sprite.height * scale)
        self.queue.append((z + order, lambda: self.stamp(sprite, name, px, py, z)))

    def cast(self, x: float, y: float, w: float, h: float) -> None:
        """Cast a shadow on the ground, away from the sun."""
        dx, dy = -self.side * min(h, 2 * w) * 0.7, -h * 0.05 - 1
        half = w * 0.45
        points = [(x - half, y), (x + half, y), (x + half + dx, y + dy)]
        quad = np.array([*points, (x - half + dx, y + dy)])
        cv2.fillConvexPoly(self.shadow, quad.astype(np.int32), 255)
        centre, axes = (int(x), int(y)), (int(half) + 1, int(0.12 * w) + 1)
        cv2.ellipse(self.shadow, centre, axes, 0, 0, 360, 255, -1)

    def stamp(self, sprite: _Sprite, name: str, px: float, py: float, z: float) -> None:
        h, w = sprite.part.shape
        x0, y0 = round(px - w / 2), round(py) - h + 1
        u0, v0 = max(-x0, 0), max(-y0, 0)
        u1, v1 = min(w, self.w - x0), min(h, self.h - y0)
        if u1 <= u0 or v1 <= v0:
            return
        part, rgb = sprite.part[v0:v1, u0:u1], sprite.rgb[v0:v1, u0:u1]
        across = (np.arange(u0, u1) / w - 0.5) * self.side * 0.35 * self.sun
        up = (0.5 - np.arange(v0, v1) / h) * 0.25
        grain = _noise(self.rng, part.shape, 8, 3) * 0.04
        shade: Array = np.asarray(1 + across + up[:, None] + grain, np.float32)
        at = np.s_[y0 + v0 : y0 + v1, x0 + u0 : x0 + u1]
        self.paint(part > 0, rgb * cv2.merge([shade] * 3), name, z, at)
        self.label[at][part == 2] = 0

    def wall(
        self,
        name: str,
        texture: Texture,
        x: Any,
        z: Any,
        height: float,
        order: float = 0,
    ) -> None:
        """Queue an upright wall: along the view (one x, two z) or across (two x)."""
        self.queue.append(
            (np.max(z) + order, lambda: self._wall(name, texture, x, z, height))
        )

    def _wall(self, name: str, texture: Texture, x: Any, z: Any, height: float) -> None:
        if np.ndim(z):
            dx = self.xs[0] - self.vx
            depth = self.focal * x / np.where(np.abs(dx) < 0.5, 0.5, dx)
            cols = (depth >= z[0]) & (depth <= z[1])
            along, light = depth, 1 + 0.25 * self.sun * -np.sign(x) * self.side
        else:
            depth = np.full(self.w, float(z), np.float32)
            along = (self.xs[0] - self.vx) * z / self.focal
            cols, light = (along >= x[0]) & (along <= x[1]), 0.95
        (index,) = np.nonzero(cols)
        if not len(index):
            return
        scale = self.focal / depth[index].min()
        top = max(int(self.horizon + (self.eye - height) * scale), 0)
        foot = max(int(self.horizon + self.eye * scale) + 2, 0)
        at = np.s_[top:foot, index[0] : index[-1] + 1]
        depth = np.broadcast_to(depth[at[1]], self.ys[at].shape)
        v = self.eye - (self.ys[at] - self.horizon) * depth / self.focal
        u = np.broadcast_to(along[at[1]], v.shape) - np.min(along[index])
        rgb: Array = np.asarray(texture(u, v), np.float32)
        tops = rgb[..., 3] if rgb.shape[-1] == 4 else 0  # the crown's cut-out in metres
        where = (v >= 0) & (v <= height - tops)
        self.paint(where, rgb[..., :3] * np.float32(light), name, depth, at)

    def finish(self) -> tuple[Array, Array]:
        soft = cv2.GaussianBlur(self.shadow, (0, 0), 1.5)[self.low :, :, None]
        self.rgb[self.low :] *= 1 - soft * np.float32((0.15 + 0.35 * self.sun) / 255)
        for _, draw in sorted(self.queue, key=lambda item: -item[0]):
            draw()
        size, rng = (self.w // _SS, self.h // _SS), self.rng
        rgb = cv2.resize(np.clip(self.rgb, 0, 1), size, interpolation=cv2.INTER_AREA)
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.25, 0.6))
        grey = rgb.mean(-1, keepdims=True)
        rgb = grey + (rgb - grey) * float(rng.uniform(0.45, 1.15))
        gain = rng.uniform(0.88, 1.12, 3) * rng.uniform(0.95, 1.3)
        rgb = rgb * gain.astype(np.float32)
        rgb = np.clip(rgb, 0, 1) ** float(rng.uniform(0.75, 1.15))
        rgb += rng.standard_normal(rgb.shape, np.float32) * rng.uniform(0.008, 0.025)
        image = np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
        return image, np.ascontiguousarray(self.label[::_SS, ::_SS])


# Ground textures ---------------------------------------------------------------------


def _grass(c: _Scene) -> Array:
    base = _hsv(c.grass_hue, c.rng.uniform(0.3, 0.65), c.rng.uniform(0.35, 0.6))
    blades = _noise(c.rng, c.Z.shape, 3, 2) * np.clip(12 / c.Z, 0.3, 1)
    return _tint(1 + 0.14 * c.grain(30) + 0.13 * blades, base)


def _field(c: _Scene) -> Array:
    """Crop rows that run to the vanishing point."""
    soil = _hsv(c.rng.uniform(0.06, 0.1), 0.45, c.rng.uniform(0.25, 0.5))
    crop = _hsv(c.rng.uniform(0.1, 0.33), c.rng.uniform(0.4, 0.7), 0.6)
    pitch, slant = c.rng.uniform(1.0, 2.0), c.rng.uniform(-0.5, 0.5)
    row = np.sin((c.X + slant * c.Z + 0.1 * c.grain(8)) * 2 * np.pi / pitch)
    sharp = np.clip(pitch * c.focal / c.Z / 10, 0, 1)
    mix = 0.5 + np.clip(row * 1.6, -0.5, 0.5) * sharp
    tone = 1 + 0.1 * c.grain(6)
    return _tint(tone, soil) + _tint(tone * mix, crop - soil)


def _road(c: _Scene) -> Array:
    base = _stone(c.rng) * c.rng.uniform(0.55, 0.95)
    speck = _noise(c.rng, c.Z.shape, 2, 1)
    return _tint(1 + 0.06 * c.grain(14) + 0.05 * speck, base)


def _sidewalk(c: _Scene) -> Array:
    base, slab = _stone(c.rng), c.rng.uniform(0.8, 1.4)
    x, z = c.X / slab, np.minimum(c.Z, 99) / slab
    i, j = np.floor(x), np.floor(z)
    thick = np.maximum(0.06, 1.2 * c.Z / c.focal) / slab
    deep = np.maximum(0.06, 1.2 * c.Z**2 / c.focal / c.eye) / slab
    joint = (x - i < thick) | ((z - j < deep) & (deep < 0.5))
    tone = c.rng.normal(1, 0.07, 64)[np.int32(i * 7 + j * 13) % 64]
    return _tint((tone - 0.3 * joint) * (1 + 0.04 * c.grain(5)), base)


def _water(c: _Scene) -> Array:
    """The backdrop upside down, broken by ripples that flatten with distance."""
    depth = c.ys[c.low :] - c.horizon
    ripple = _noise(c.rng, (len(depth), c.w // 6), 4, 2)
    wave = cv2.resize(ripple, (c.w, len(depth))) * (0.25 + depth / c.h)
    rows = np.clip(c.horizon - depth * 0.8 + wave * 14, 0, c.horizon - 1)
    mirror = cv2.remap(c.rgb, c.xs[c.low :], rows, cv2.INTER_LINEAR)
    tint = _hsv(c.rng.uniform(0.4, 0.62), 0.5, c.rng.uniform(0.15, 0.45))
    k = c.rng.uniform(0.55, 0.85)
    glint = 1 + 0.16 * np.tanh(wave * 2)
    out = mirror * cv2.merge([glint, glint, glint]) * np.float32(k)
    out += _tint(glint, tint * (1 - k))
    return out / np.maximum(c.light, 0.3)


_GROUND: dict[str, Callable[[_Scene], Array]] = {
    'grass': _grass,
    'field': _field,
    'road': _road,
    'sidewalk': _sidewalk,
    'water': _water,
}


# Things ------------------------------------------------------------------------------


def _tree(rng: Rng, s: float, c: _Scene) -> _Sprite:
    h, hue = rng.uniform(4.5, 8), c.leaf_hue + rng.normal(0, 0.035)
    leaf = _hsv(hue, rng.uniform(0.35, 0.7), rng.uniform(0.28, 0.6))
    bark = _hsv(0.07, rng.uniform(0.15, 0.4), rng.uniform(0.18, 0.4))
    if rng.random() < 0.3:  # conifer
        w = h * rng.uniform(0.4, 0.55)
        t = _Sprite(s, w, h)
        t.rect(w * 0.46, 0, w * 0.54, h * 0.3, bark)
        for k in np.linspace(0, 1, 7):
            half, y = w / 2 * (1 - 0.85 * k), h * (0.12 + 0.72 * k)
            x = np.linspace(-half, half, 9)
            low = y + np.where(np.arange(9) % 2, 0.05, 0) * h * rng.uniform(0.4, 1, 9)
            skirt = [*zip(x + w / 2, low, strict=True), (w / 2, y + h * 0.24)]
            t.poly(skirt, leaf * (0.7 + 0.1 * rng.random() + 0.35 * k))
    else:
        w = h * (rng.uniform(0.3, 0.4) if rng.random() < 0.2 else rng.uniform(0.6, 0.9))
        t, cy, ry = _Sprite(s, w, h), h * 0.63, h * 0.37
        stem = [(0.42, 0), (0.58, 0), (0.53, 0.5), (0.47, 0.5)]
        t.poly([(w / 2 + (x - 0.5) * h * 0.6, y * h) for x, y in stem], bark)
        for _ in range(60 if s > 10 else 25):
            a, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.8
            x, y, b = r * np.cos(a), r * np.sin(a), rng.uniform(0.14, 0.26)
            tone = 0.85 + 0.3 * y + 0.2 * x * c.side * c.sun + rng.normal(0, 0.13)
            t.disc(
                w / 2 * (1 + x), cy + y * ry, w / 2 * b, ry * b, leaf * max(tone, 0.3)
            )
    mottle = _noise(rng, t.part.shape, max(0.5 * s, 3), 3)
    t.rgb *= cv2.merge([np.clip(1 + 0.13 * mottle, 0.4, 1.6)] * 3)
    return t


def _person(rng: Rng, s: float, c: _Scene) -> _Sprite:
    h, w = rng.uniform(1.6, 1.9), 1.0
    p, top, legs = _Sprite(s, w, h), _any_colour(rng), _any_colour(rng) * 0.8
    skin = _hsv(rng.uniform(0.03, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.9))
    stride, k = rng.uniform(0.03, 0.2), h / 1.75
    for side in (-1, 1):
        foot = 0.5 + side * stride
        hip = 0.5 + side * 0.09
        p.poly([(foot - 0.1, 0.06), (foot + 0.1, 0.06), (hip + 0.12, 0.9 * k),
                (hip - 0.12, 0.9 * k)], legs * (1 - 0.1 * side))  # fmt: skip
        p.rect(foot - 0.1, 0, foot + 0.14, 0.1, legs * 0.4)
        hand = 0.5 + side * rng.uniform(0.28, 0.4)
        p.poly([(0.5 + side * 0.16, 1.45 * k), (0.5 + side * 0.27, 1.4 * k),
                (hand + 0.07, 0.85 * k), (hand - 0.07, 0.85 * k)],
               top * 0.85)  # fmt: skip
        p.disc(hand, 0.82 * k, 0.07, 0.07, skin)
    coat = rng.uniform(0.55, 0.85) * k
    p.poly([(0.28, coat), (0.72, coat), (0.75, 1.42 * k), (0.6, 1.5 * k),
            (0.4, 1.5 * k), (0.25, 1.42 * k)], top)  # fmt: skip
    p.disc(0.5, 1.61 * k, 0.12, 0.14, skin * rng.uniform(0.2, 0.6))
    p.disc(0.5, 1.59 * k, 0.1, 0.11, skin)
    return p


def _wheels(v: _Sprite, centres: Any, r: float) -> None:
    for x in centres:
        v.disc(x, r, r, r, (0.08, 0.08, 0.09))
        v.disc(x, r, r * 0.55, r * 0.55, (0.5, 0.5, 0.52))


def _glass(rng: Rng, c: _Scene) -> Array:
    return np.asarray(0.12 + c.top * rng.uniform(0.1, 0.45), np.float32)


def _car(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """A car from its side."""
    n, h, body = rng.uniform(4.0, 4.6), rng.uniform(1.45, 1.7), _any_colour(rng)
    v, glass, back = _Sprite(s, n, h), _glass(rng, c), rng.uniform(0.04, 0.2)
    v.poly([(n * x, h * y) for x, y in (
        (0.0, 0.2), (1.0, 0.2), (1.0, 0.48), (0.95, 0.58), (0.75, 0.63), (0.6, 1.0),
        (back + 0.08, 1.0), (back, 0.65), (0.01, 0.6))], body)  # fmt: skip
    v.poly([(n * x, h * y) for x, y in (
        (back + 0.04, 0.64), (back + 0.1, 0.93), (0.36, 0.93), (0.36, 0.64))],
        glass)  # fmt: skip
    v.poly([(n * x, h * y) for x, y in (
        (0.39, 0.64), (0.39, 0.93), (0.58, 0.93), (0.71, 0.64))], glass)  # fmt: skip
    v.rect(0, h * 0.2, n, h * 0.27, body * 0.45)
    v.rect(0, h * 0.48, n * 0.03, h * 0.58, (0.7, 0.1, 0.08))
    v.rect(n * 0.97, h * 0.45, n, h * 0.53, (0.95, 0.93, 0.8))
    _wheels(v, (n * 0.2, n * 0.8), 0.36)
    if rng.random() < 0.5:
        v.rgb, v.part = v.rgb[:, ::-1].copy(), v.part[:, ::-1].copy()
    return v


def _car_end(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """A car from its front or back."""
    w, h, body = 1.85, rng.uniform(1.45, 1.75), _any_colour(rng)
    v, back = _Sprite(s, w, h), rng.random() < 0.5
    for x in (0.12, w - 0.37):
        v.rect(x, 0, x + 0.25, 0.4, (0.07, 0.07, 0.08))
    v.poly([(0.03, 0.22), (w - 0.03, 0.22), (w, 0.6), (w - 0.08, h * 0.6),
            (w - 0.3, h), (0.3, h), (0.08, h * 0.6), (0, 0.6)], body)  # fmt: skip
    v.poly([(0.2, h * 0.6), (w - 0.2, h * 0.6), (w - 0.37, h * 0.94),
            (0.37, h * 0.94)], _glass(rng, c))  # fmt: skip
    lamp = (0.75, 0.08, 0.06) if back else (0.97, 0.95, 0.85)
    v.rect(0.06, h * 0.42, 0.42, h * 0.54, lamp)
    v.rect(w - 0.42, h * 0.42, w - 0.06, h * 0.54, lamp)
    v.rect(0.03, 0.22, w - 0.03, 0.36, body * 0.4)
    v.rect(w / 2 - 0.26, 0.4, w / 2 + 0.26, 0.54, (0.85, 0.85, 0.8))
    return v


def _bus(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """A bus from its side: one long box with a band of windows."""
    n, h, body, trim = rng.uniform(7.5, 9.5), 3.1, _any_colour(rng), _any_colour(rng)
    v, glass = _Sprite(s, n, h), _glass(rng, c)
    v.poly([(0, 0.35), (n, 0.35), (n, h - 0.4), (n - 0.25, h), (0.2, h), (0, h - 0.2)],
           body)  # fmt: skip
    v.rect(0, 0.9, n, 1.2, trim)
    v.rect(0.15, 1.45, n - 0.05, 2.6, body * 0.35)
    for x in np.arange(0.25, n - 1.2, 1.25):
        v.rect(x, 1.5, x + 1.1, 2.55, glass * rng.uniform(0.8, 1.3))
    for x in (n - 1.3, n * 0.42):
        v.rect(x, 0.45, x + 1.0, 2.5, glass * 0.9)
        v.rect(x + 0.47, 0.45, x + 0.53, 2.5, body * 0.6)
    _wheels(v, (n * 0.22, n * 0.72), 0.5)
    if rng.random() < 0.5:
        v.rgb, v.part = v.rgb[:, ::-1].copy(), v.part[:, ::-1].copy()
    return v


def _bus_end(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """A bus from its front or back."""
    w, h, body = 2.6, 3.2, _any_colour(rng)
    v, glass = _Sprite(s, w, h), _glass(rng, c)
    for x in (0.15, w - 0.5):
        v.rect(x, 0, x + 0.35, 0.5, (0.07, 0.07, 0.08))
    v.poly(
        [(0, 0.3), (w, 0.3), (w, h - 0.2), (w - 0.2, h), (0.2, h), (0, h - 0.2)], body
    )
    v.rect(0.12, 1.25, w - 0.12, 2.55, glass)
    v.rect(w / 2 - 0.04, 1.25, w / 2 + 0.04, 2.55, body * 0.4)
    v.rect(0.45, 2.68, w - 0.45, 3.02, (0.1, 0.1, 0.1))
    v.rect(0.6, 2.76, w - 0.6, 2.94, (0.95, 0.7, 0.2))
    for x in (0.12, w - 0.52):
        v.rect(x, 0.65, x + 0.4, 0.9, (0.97, 0.93, 0.8))
    v.rect(0, 0.3, w, 0.5, body * 0.4)
    return v


def _signboard(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """A billboard with lettering on posts, or a road sign; the posts bear no label."""
    face, ink, post = _any_colour(rng), _any_colour(rng), _stone(rng) * 0.6
    ink = ink * 0.3 if face.mean() > 0.5 else 1 - ink * 0.3
    if rng.random() < 0.6:
        w, tall = rng.uniform(2.6, 4.2), rng.uniform(1.5, 2.3)
        foot = rng.uniform(0.9, 2.0)
        b = _Sprite(s, w, foot + tall)
        for x in (0.2, 0.75):
            b.rect(w * x, 0, w * x + 0.16, foot, post, 2)
        b.rect(0, foot, w, foot + tall, ink)
        b.rect(0.12, foot + 0.12, w - 0.12, foot + tall - 0.12, face)
        for y in np.arange(foot + 0.3, foot + tall - 0.45, 0.5):
            for x in np.arange(0.3, w - rng.uniform(0.4, 1.2), 0.32):
                b.rect(
                    x, y, x + rng.uniform(0.12, 0.26), y + rng.uniform(0.2, 0.34), ink
                )
        return b
    d, foot = rng.uniform(1.1, 1.5), rng.uniform(1.3, 1.9)
    b, r, y = _Sprite(s, d, foot + d), d / 2, foot + d / 2
    b.rect(r - 0.07, 0, r + 0.07, foot + 0.2, post, 2)
    corners, turn = [(18, 0.0), (3, 0.25), (4, 0.25), (8, 0.0625)][rng.integers(4)]
    a = (np.arange(corners) / corners + turn) * 2 * np.pi
    star = np.stack([np.cos(a), np.sin(a)], 1)
    for k, colour in ((1.0, ink), (0.78, face)):
        b.poly(star * r * k + (r, y), colour)
    b.rect(r - 0.1, y - r * 0.35, r + 0.1, y + r * 0.35, ink)
    return b


def _lamp(rng: Rng, s: float, c: _Scene) -> _Sprite:
    b, tone = _Sprite(s, 1.6, 5.5), _stone(rng) * 0.5
    b.rect(0.74, 0, 0.88, 5.4, tone, 2)
    b.rect(0.74, 5.3, 1.5, 5.45, tone, 2)
    b.rect(1.1, 5.15, 1.6, 5.32, (0.95, 0.93, 0.8), 2)
    return b


def _house(rng: Rng, s: float, c: _Scene) -> _Sprite:
    """Walls, a door, windows and a pitched roof, gable or eaves to the front."""
    w, eaves = rng.uniform(7, 10), rng.uniform(2.8, 3.6) * rng.choice([1, 1, 1.6])
    roof, wall, tile = rng.uniform(2.0, 3.4), _any_colour(rng), _stone(rng)
    wall, tile = 0.5 * wall + 0.4, tile * rng.uniform(0.5, 0.9) * (1, 0.9, 0.85)
    b, glass, frame = (
        _Sprite(s, w, eaves + roof + 0.4),
        _glass(rng, c),
        (0.9, 0.9, 0.88),
    )
    stack = rng.uniform(0.65, 0.8) * w
    b.rect(stack, eaves, stack + 0.7, eaves + roof + 0.3, tile * 0.7)
    b.rect(0.5, 0, w - 0.5, eaves, wall)
    if rng.random() < 0.5:
        b.poly([(0, eaves - 0.2), (w, eaves - 0.2), (w / 2, eaves + roof)], tile)
        b.poly([(0.9, eaves - 0.2), (w - 0.9, eaves - 0.2),
                (w / 2, eaves + roof - 0.6)], wall * 0.93)  # fmt: skip
        b.rect(w / 2 - 0.5, eaves + 0.2, w / 2 + 0.5, eaves + 1.0, glass)
    else:
        hip = rng.uniform(0.3, 2.0)
        b.poly(
            [(0, eaves), (w, eaves), (w - hip, eaves + roof), (hip, eaves + roof)], tile
        )
        for y in np.arange(0.3, roof, 0.4):
            k = hip * y / roof
            b.rect(k, eaves + y, w - k, eaves + y + 0.08, tile * 0.72)
    door = rng.uniform(0.35, 0.55) * w
    b.rect(door, 0, door + 1.1, 2.1, _any_colour(rng) * 0.7)
    for x in (0.14 * w, 0.7 * w):
        for y in np.arange(0.9, eaves - 1.2, 2.4):
            b.rect(x - 0.1, y - 0.1, x + 1.4, y + 1.4, frame)
            b.rect(x, y, x + 1.3, y + 1.3, glass)
            b.rect(x + 0.6, y, x + 0.7, y + 1.3, frame)
    return b


def _facade(rng: Rng, c: _Scene, height: float) -> Texture:
    """Storeys of windows in brick, plaster or glass, with shops at the foot."""
    wall = 0.55 * _any_colour(rng) + 0.45 * _stone(rng)
    shop, glass, floor = _any_colour(rng), _glass(rng, c), rng.uniform(2.8, 3.6)
    pitch, wide, tall = (
        rng.uniform(2, 3.6),
        rng.uniform(0.4, 0.9),
        rng.uniform(0.4, 0.7),
    )
    tone, lit = rng.normal(0, 0.08, (64, 64)), rng.random((64, 64))
    glow = 0.25 if c.light.mean() < 0.75 else 0.06

    def texture(u: Array, v: Array) -> Array:
        i: Array = np.asarray(u // pitch, np.int32) % 64
        j: Array = np.asarray(np.clip(v, 0, 99) // floor, np.int32)
        fu, fv = u / pitch % 1 - 0.5, v / floor % 1 - 0.5
        brick = tone[np.int32(v // 0.35) % 64, np.int32(u // 0.8) % 64]
        rgb = _tint(1 + brick * 0.8 - 0.2 * (np.abs(fv) > 0.47), wall)
        rgb[j == 0] = shop * 0.8
        half = np.where(j == 0, 0.85, wide) / 2
        pane = (np.abs(fu) < half) & (np.abs(fv) < tall / 2) & (v < height - 0.9)
        gleam = lit[j[pane] % 64, i[pane]]
        rgb[pane] = glass * (0.7 + 0.7 * gleam[:, None])
        rgb[pane & (lit[j % 64, i] < glow)] = (1.0, 0.85, 0.5)
        rgb[v > height - 0.5] = wall * 0.7
        return rgb

    return texture


def _fence(rng: Rng) -> tuple[Texture, float]:
    """Boards, upright with pointed tops or lengthwise between posts."""
    wood = 0.5 * _any_colour(rng) + 0.5 * _hsv(0.08, 0.35, rng.uniform(0.3, 0.9))
    board, height = rng.uniform(0.24, 0.42), rng.uniform(1.2, 1.8)
    point, tone = rng.choice([0.0, 0.25]), rng.normal(0, 0.1, 64)
    upright = rng.random() < 0.7

    def texture(u: Array, v: Array) -> Array:
        across = u if upright else v
        f = across / board % 1
        shade = (
            1 + tone[np.int32(across // board) % 64] - 0.45 * (np.abs(f - 0.5) > 0.36)
        )
        if not upright:
            shade = np.where(u % 2.2 < 0.2, 0.6, shade)
        tops = np.abs(f - 0.5) * 2 * point * upright
        return np.concatenate([wood * shade[..., None], tops[..., None]], -1)

    return texture, height


# Layouts -----------------------------------------------------------------------------


def _backdrop(c: _Scene, mountains: float) -> None:
    """Sky with clouds and, with the given chance, layers of mountains."""
    rng = c.rng
    sky = c.rgb[: c.low]
    t = c.ys[: c.low] / c.horizon
    cloud = cv2.resize(_noise(rng, (c.low, c.w // 2), 60, 5), (c.w, c.low))
    cover = np.clip(cloud * 0.5 + float(rng.uniform(-0.9, 0.5)), 0, 1) * (1 - 0.5 * t)
    sx, sy = c.w * (0.5 + 0.45 * c.side), c.horizon * float(rng.uniform(0.1, 0.9))
    glow = np.exp(np.hypot(c.xs - sx, c.ys - sy)[: c.low] / (-0.12 * c.w))
    sky[:] = _tint((1 - t) * (1 - cover), c.top) + _tint(t * (1 - cover), c.foot)
    sky += _tint(cover * 0.93 + glow * 0.35 * c.sun, c.light)
    c.label[:] = SCENE_IDS['sky']
    if rng.random() >= mountains:
        return
    layers = rng.integers(1, 4)
    rock = _hsv(rng.choice([0.08, 0.3, 0.6]), rng.uniform(0.1, 0.45), 0.45)
    snow = rng.uniform(0, 0.35) if rng.random() < 0.5 else -1.0
    for k in range(layers):
        rise = c.h * rng.uniform(0.12, 0.32) * (1 - 0.3 * k)
        ridge = rise * (0.6 + 0.28 * _noise(rng, (1, c.w), c.w / 3, 6)[0])
        rows = c.ys[: c.low]
        where = rows > c.horizon - ridge
        relief = _noise(rng, (c.low, c.w), 40, 5)
        slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3, scale=0.25) * c.side
        high = (c.horizon - rows) / rise + 0.1 * relief
        white = (high > 1 - snow) & (snow > 0)
        shade = np.clip(1 + 0.6 * slope, 0.4, 1.5)
        rgb = _tint(shade * ~white, rock) + _tint(shade * white, np.full(3, 0.85))
        c.paint(where, rgb, 'mountain', 0.7 * c.sight * 0.5**k, np.s_[: c.low])


def _mark(c: _Scene, where: Array) -> None:
    tint = (0.9, 0.9, 0.86) if c.rng.random() < 0.75 else (0.85, 0.68, 0.2)
    where = where & (c.grain(3) < 1.4) & (c.Z < 60)
    rgb = _tint(np.ones_like(c.Z), np.array(tint))
    c.paint(where, rgb, 'road', c.Z, np.s_[c.low :])


def _road_ahead(c: _Scene, x0: float, half: float, bend: float, walk: float) -> None:
    """A road toward the vanishing point with sidewalks `walk` metres wide."""
    off = c.X - x0 - bend * np.minimum(c.Z, 200) ** 2
    if walk:
        c.lay('sidewalk', np.abs(off) < half + walk)
    c.lay('road', np.abs(off) < half)
    _mark(c, (np.abs(off) < 0.11) & (c.Z % 5 < 2.8))
    if c.rng.random() < 0.6:
        _mark(c, np.abs(np.abs(off) - half + 0.35) < 0.08)


def _fence_line(c: _Scene, x: Any, z: Any, step: float = 5) -> None:
    """A fence in short lengths, so that it sorts well among other things."""
    texture, height = _fence(c.rng)
    if np.ndim(z):
        for a in np.arange(z[0], z[1], step):
            c.wall('fence', texture, x, (a, a + step), height)
    else:
        c.wall('fence', texture, x, z, height)


def _crowd(c: _Scene, n: Any, x: Any, z: Any) -> None:
    for _ in range(n):
        c.place(_person, c.rng.uniform(*x), c.rng.uniform(*z))


def _far_trees(c: _Scene, z: float, share: float) -> None:
    reach = 0.6 * c.w * z / c.focal
    for x in np.arange(-reach, reach, 4):
        if c.rng.random() < share:
            c.place(_tree, x + c.rng.uniform(-2, 2), z * c.rng.uniform(0.9, 1.2))


def _street(c: _Scene) -> None:
    """Down a street: walls of buildings (city) or houses in gardens (suburb)."""
    rng, city = c.rng, c.rng.random() < 0.55
    _backdrop(c, 0.35)
    half, walk = rng.uniform(3.2, 4.8), rng.uniform(2.2, 3.6)
    x0, bend = rng.uniform(-2, 2), 0 if city else rng.uniform(-0.003, 0.003)
    c.lay('grass', c.Z > 0)
    _road_ahead(c, x0, half, bend, walk)
    _far_trees(c, 75, 0.6)
    for side in (-1, 1):
        edge = x0 + side * (half + walk)
        z = rng.uniform(5, 9)
        open_side = rng.random() < 0.2
        while city and not open_side and z < 70:
            deep, height = rng.uniform(9, 18), rng.uniform(6, 18)
            if rng.random() < 0.85:
                texture, outer = _facade(rng, c, height), edge + side * 14
                c.wall('building', texture, sorted((edge, outer)), z, height, deep)
                c.wall('building', texture, edge, (z, z + deep), height)
            z += deep + rng.choice([0, 3])
        if not city or open_side:
            if rng.random() < 0.7:
                _fence_line(c, edge + side * 0.4, (rng.uniform(5, 12), 45))
            for z in np.arange(rng.uniform(12, 18), 60, 13):
                x = edge + side * rng.uniform(6, 8) + bend * z**2
                c.place(_house if rng.random() < 0.75 else _tree, x, z)
                c.place(_tree, edge + side * rng.uniform(2, 12) + bend * z**2, z + 6)
        if rng.random() < 0.5:
            for z in np.arange(rng.uniform(9, 14), 45, 9):
                painter = _tree if rng.random() < 0.7 else _lamp
                c.place(painter, edge - side * (walk - 0.6) + bend * z**2, z)
        spot = sorted((edge - side * walk, edge))
        _crowd(c, rng.integers(0, 4), (spot[0] + 0.4, spot[1] - 0.4), (6.5, 20))
        if rng.random() < 0.5:
            c.place(_signboard, edge - side * rng.uniform(0.3, 1.5), rng.uniform(9, 17))
        for z in np.arange(rng.uniform(8, 16), 40, rng.uniform(6, 14)):
            painter = _bus_end if rng.random() < 0.3 else _car_end
            lane = x0 + side * rng.uniform(0.42, 0.6) * half + bend * z**2
            if rng.random() < 0.6:
                c.place(painter, lane, z)


def _roadside(c: _Scene) -> None:
    """Across a road: vehicles from the side, a row of buildings, houses or trees."""
    rng = c.rng
    kind = rng.choice(['city', 'suburb', 'open'], p=[0.4, 0.35, 0.25])
    _backdrop(c, 0.8 if kind == 'open' else 0.35)
    z1 = rng.uniform(6.5, 9)
    z2 = z1 + rng.uniform(6, 8)
    z3 = z2 + rng.uniform(2, 4)
    c.lay(rng.choice(['grass', 'field', 'water'], p=[0.25, 0.5, 0.25])
          if kind == 'open' else 'grass', c.Z > 0)  # fmt: skip
    tilt = c.X * rng.uniform(-0.06, 0.06)
    z = c.Z + tilt
    c.lay('grass' if rng.random() < 0.4 else 'sidewalk', z < z1)
    c.lay('sidewalk', (z >= z2) & (z < z3))
    c.lay('road', (z >= z1) & (z < z2))
    _mark(c, (np.abs(z - (z1 + z2) / 2) < 0.12) & (c.X % 4 < 2.2))
    reach = 0.6 * c.w / c.focal
    far = z3 + rng.uniform(1, 3)
    x = -reach * far * 1.6 + rng.uniform(-4, 0)
    while kind == 'city' and x < reach * far * 1.6:
        wide, height = rng.uniform(8, 15), rng.uniform(6, 16)
        if rng.random() < 0.85:
            facade = _facade(rng, c, height)
            c.wall('building', facade, (x, x + wide), far, height, 5)
        x += wide + rng.choice([0, 2])
    while kind == 'suburb' and x < reach * far * 1.6:
        if rng.random() < 0.8:
            c.place(_house, x, far + rng.uniform(4, 7))
        c.place(_tree, x + 6, far + rng.uniform(2, 9))
        x += rng.uniform(11, 15)
    if kind != 'city':
        _far_trees(c, 50, rng.choice([0.2, 0.8]) if kind == 'suburb' else 0.15)
        if rng.random() < 0.75:
            a = rng.uniform(-1.5, 0) * reach * far
            _fence_line(c, (a, a + rng.uniform(8, 30)), z3 + 0.6)
    for _ in range(rng.integers(0, 4)):
        c.place(_tree, rng.uniform(-1, 1) * reach * z3, z3 - rng.uniform(0, 0.5))
    for row in ((z1 * 0.3 + z2 * 0.7), (z1 * 0.8 + z2 * 0.2)):
        x = rng.uniform(-1.2, 0.3) * reach * row
        for _ in range(rng.integers(0, 3)):
            painter = _bus if rng.random() < 0.35 else _car
            c.place(painter, x, row)
            x += rng.uniform(9.5, 14)
    _crowd(c, rng.integers(0, 5), (-reach * z2, reach * z2), (z2 + 0.4, z3))
    _crowd(c, rng.integers(0, 3), (-reach * z1, reach * z1), (z1 - 1.2, z1 - 0.3))
    if rng.random() < 0.6:
        c.place(_signboard, rng.uniform(-1, 1) * reach * z2, z2 + 0.5)


def _country(c: _Scene) -> None:
    """Meadows and ploughed fields under mountains, a lane, a farm, a pond."""
    rng = c.rng
    _backdrop(c, 0.85)
    c.lay('grass', c.Z > 0)
    split = rng.uniform(-4, 4) + rng.normal(0, 0.3) * c.Z
    right = rng.choice([-1, 1])
    if rng.random() < 0.85:
        c.lay('field', (c.X * right > split) & (c.Z > rng.uniform(4, 11)))
    pond = rng.random() < 0.4
    if pond:
        x, z = rng.uniform(-12, 12), rng.uniform(16, 26)
        oval = np.hypot((c.X - x) / rng.uniform(12, 22), (c.Z - z) / rng.uniform(6, 10))
        c.lay('water', oval + 0.06 * c.grain(40) < 1)
    x0, half = rng.uniform(-3, 3), rng.uniform(1.8, 3.2)
    bend = rng.uniform(-0.006, 0.006)
    lane = not pond and rng.random() < 0.7
    if lane:
        _road_ahead(c, x0, half, bend, 0)
    _far_trees(c, 70, rng.uniform(0, 0.7))
    for _ in range(rng.integers(1, 7)):
        side, z = rng.choice([-1, 1]), rng.uniform(11, 45)
        c.place(_tree, x0 + side * (half + rng.uniform(2, 16)) + bend * z**2, z)
    for _ in range(rng.integers(0, 3)):
        side, z = rng.choice([-1, 1]), rng.uniform(17, 34)
        c.place(_house, x0 + side * (half + rng.uniform(7, 16)) + bend * z**2, z)
    if rng.random() < 0.6:
        if rng.random() < 0.5:
            x = x0 + rng.choice([-1, 1]) * (half + 1.2)
            _fence_line(c, x, (rng.uniform(4, 8), 30))
        else:
            x = rng.choice([-1, 1]) * (half + 2) + x0
            _fence_line(c, sorted((x, np.sign(x) * 25)), rng.uniform(9, 15))
    if rng.random() < 0.35:
        c.place(_signboard, x0 + rng.choice([-1, 1]) * (half + 2), rng.uniform(8, 15))
    if lane and rng.random() < 0.6:
        z = rng.uniform(10, 20)
        c.place(_bus_end if rng.random() < 0.3 else _car_end, x0 + bend * z**2, z)
    _crowd(
        c, rng.integers(0, 4), (x0 - half - 3, x0 + half + 3), (7, 9 if pond else 18)
    )


def _waterside(c: _Scene) -> None:
    """Open water with a near shore or promenade and a far one."""
    rng = c.rng
    _backdrop(c, 0.7)
    c.lay('water', c.Z > 0)
    c.lay('grass', c.Z > rng.uniform(70, 400))
    shore = rng.uniform(9, 18) + c.X * rng.uniform(-0.3, 0.3)
    paved = rng.random() < 0.55
    wavy = 0 if paved else 0.8 * c.grain(60)
    c.lay('sidewalk' if paved else 'grass', c.Z < shore + wavy)
    if paved and rng.random() < 0.5:
        c.lay('grass', c.Z < shore - rng.uniform(3, 5))
    if rng.random() < 0.6:
        _far_trees(c, 80, rng.uniform(0.2, 0.8))
    if rng.random() < 0.3:
        x = rng.uniform(-40, 20)
        for _ in range(rng.integers(2, 6)):
            wide, height = rng.uniform(9, 16), rng.uniform(7, 24)
            facade = _facade(rng, c, height)
            c.wall('building', facade, (x, x + wide), 78, height)
            x += wide
    near = 8.5
    if rng.random() < 0.45:
        a = rng.uniform(-7, 0)
        _fence_line(c, (a, a + rng.uniform(5, 16)), near + rng.uniform(0, 2))
    for _ in range(rng.integers(0, 4)):
        c.place(_tree, rng.choice([-1, 1]) * rng.uniform(2, 6), rng.uniform(8, 12))
    _crowd(c, rng.integers(1, 5), (-4, 4), (6.5, 10.5))
    if rng.random() < 0.5:
        c.place(_signboard, rng.uniform(-4, 4), rng.uniform(8, 11))
    if rng.random() < 0.2:
        c.place(_car, rng.uniform(-4, 4), near)


_LAYOUTS = (_street, _roadside, _country, _waterside)
_SHARES = (0.3, 0.3, 0.25, 0.15)


# Data set ----------------------------------------------------------------------------


def make_scene(
    seed: int, split: str, index: int, size: tuple[int, int] = (160, 208)
) -> tuple[Array, Array]:
    """Draw one scene; the same arguments always give the same pixels.

    Args:
        seed: Seed of the data set, at least 0.
        split: 'training' or 'validation'.
        index: Number of the scene in its split, at least 0.
        size: Height and width in pixels, each at least 64.

    Returns:
        The image, uint8 RGB (H, W, 3), and its label, uint8 (H, W): 0 for unlabelled,
        else an ADE20K SceneParse150 id, one of `SCENE_IDS`.

    Raises:
        ValueError: If an argument is out of its range.
    """
    _check_size(size)
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    for name, value in (('seed', seed), ('index', index)):
        _check_count(name, value)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = _Scene(rng, *size)
    _LAYOUTS[rng.choice(len(_LAYOUTS), p=_SHARES)](scene)
    return scene.finish()


def _check_size(size: Any) -> None:
    whole = all(isinstance(n, int | np.integer) for n in size)
    if len(size) != 2 or not whole or min(size) < 64:
        raise ValueError(f'size must be (height, width), both >= 64, got {size!r}')


def _check_count(name: str, value: Any) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 0:
        raise ValueError(f'{name} must be an integer >= 0, got {value!r}')


def _files(root: Path, split: str, count: int) -> list[tuple[Path, Path]]:
    return [
        (
            root / 'images' / split / f'scene_{i + 1:08d}.jpg',
            root / 'annotations' / split / f'scene_{i + 1:08d}.png',
        )
        for i in range(count)
    ]


def _save(path: Path, suffix: str, array: Array, *options: int) -> None:
    ok, data = cv2.imencode(suffix, array, options)
    if not ok:
        raise OSError(f'OpenCV could not encode {path}')
    path.write_bytes(data.tobytes())


def write_scenes(
    root: str | Path,
    num_train: int = 400,
    num_val: int = 60,
    size: tuple[int, int] = (160, 208),
    seed: int = 0,
    workers: int = 2,
) -> dict[str, Any]:
    """Write a data set of scenes in the layout of ADEChallengeData2016.

    Args:
        root: Folder to write; new, empty, or already holding this very data set.
        num_train: Scenes in `images/training`.
        num_val: Scenes in `images/validation`.
        size: Height and width in pixels, each at least 64.
        seed: Seed of the data set.
        workers: Threads that draw, at least 1.

    Returns:
        What `root/scenes.json` holds: the parameters and, per class, the share of all
        pixels (`pixel_share`) and of the scenes it occurs in (`scene_share`), 0 to 1.

    Raises:
        ValueError: If an argument is out of its range or `root` holds something else.
        PermissionError: If `root` cannot be written.
    """
    _check_size(size)
    counts = {'training': num_train, 'validation': num_val}
    for name, n in (('num_train', num_train), ('num_val', num_val), ('seed', seed)):
        _check_count(name, n)
    _check_count('workers', workers)
    if workers < 1:
        raise ValueError(f'workers must be >= 1, got {workers}')
    root = Path(root)
    meta: dict[str, Any] = {
        'generator': 'illama_seg.datasets.scenes',
        'version': VERSION,
        'seed': int(seed),
        'size': [int(n) for n in size],
        'counts': {split: int(n) for split, n in counts.items()},
        'ids': SCENE_IDS,
    }
    jobs = [
        (split, i, pair)
        for split, n in counts.items()
        for i, pair in enumerate(_files(root, split, n))
    ]
    note = root / 'scenes.json'
    try:
        found = _found(root, meta)
        if 'pixel_share' in found and all(p.is_file() for job in jobs for p in job[2]):
            print_log(f'{root} already holds these scenes', 'current', logging.INFO)
            return found
        for split in SPLITS:
            for kind in ('images', 'annotations'):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(meta, indent=2) + '\n')
    except PermissionError as error:
        raise PermissionError(
            f'cannot write scenes to {root.resolve()}: {error.strerror}; '
            'choose a folder you may write to'
        ) from error

    def work(job: tuple[str, int, tuple[Path, Path]]) -> Array:
        split, index, (image_path, label_path) = job
        image, label = make_scene(seed, split, index, size)
        _save(image_path, '.jpg', image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 92)
        _save(label_path, '.png', label)
        return np.bincount(label.ravel(), minlength=151)

    with ThreadPoolExecutor(workers) as pool:
        done = tqdm(
            pool.map(work, jobs), 'scenes', len(jobs), leave=False, disable=None
        )
        table = np.array(list(done)).reshape(-1, 151)
    pixels = table.sum(0) / max(table.sum(), 1)
    scenes = (table > 0).sum(0) / max(len(table), 1)
    ids = {'unlabelled': 0, **SCENE_IDS}
    meta['pixel_share'] = {name: round(float(pixels[i]), 5) for name, i in ids.items()}
    meta['scene_share'] = {name: round(float(scenes[i]), 4) for name, i in ids.items()}
    note.write_text(json.dumps(meta, indent=2) + '\n')
    print_log(f'Wrote {len(jobs)} scenes to {root}', 'current', logging.INFO)
    return meta


def _found(root: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left in root; ValueError if it is not the same data set."""
    way_out = 'choose another folder, or delete this one first'
    if root.exists() and not root.is_dir():
        raise ValueError(f'{root} is a file, not a folder; {way_out}')
    if not root.exists() or not any(root.iterdir()):
        return {}
    try:
        found = dict(json.loads((root / 'scenes.json').read_text()))
    except (FileNotFoundError, TypeError, ValueError):
        raise ValueError(f'{root} holds files that are not scenes; {way_out}') from None
    other = [key for key, value in meta.items() if found.get(key) != value]
    if other:
        raise ValueError(
            f'{root} holds scenes with another {", ".join(other)}; {way_out}'
        )
    return found
