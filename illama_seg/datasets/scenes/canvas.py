"""The canvas with its camera and light, what is drawn on it, and the label ids."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from illama_seg.datasets.scenes.colours import Array, Rng, noise

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

Texture = Callable[[Array, Array], Array]

_SS = 2  # supersampling
_TURN = np.arange(18) * np.pi / 9
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)

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


class Sprite:
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


class Scene:
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
        self.tile = noise(rng, (256, 256), 64, 6)
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

    def place(self, painter: Any, x: float, z: float, order: float = 0) -> None:
        """Queue a painter's sprite at (x, z); `order` moves it back in the queue."""
        scale = self.focal / z
        sprite = painter(self.rng, scale, self)
        name = painter.__name__.split('_')[0]
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

    def stamp(self, sprite: Sprite, name: str, px: float, py: float, z: float) -> None:
        h, w = sprite.part.shape
        x0, y0 = round(px - w / 2), round(py) - h + 1
        u0, v0 = max(-x0, 0), max(-y0, 0)
        u1, v1 = min(w, self.w - x0), min(h, self.h - y0)
        if u1 <= u0 or v1 <= v0:
            return
        part, rgb = sprite.part[v0:v1, u0:u1], sprite.rgb[v0:v1, u0:u1]
        across = (np.arange(u0, u1) / w - 0.5) * self.side * 0.35 * self.sun
        up = (0.5 - np.arange(v0, v1) / h) * 0.25
        grain = noise(self.rng, part.shape, 8, 3) * 0.04
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
        *,
        height: float,
        order: float = 0,
    ) -> None:
        """Queue an upright wall: along the view (one x, two z) or across (two x)."""
        draw = partial(self._wall, name, texture, x, z, height)
        self.queue.append((np.max(z) + order, draw))

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
