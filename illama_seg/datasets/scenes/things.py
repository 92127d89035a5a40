"""Objects on the ground: painters of sprites, textures of walls and fences.

A painter gives its sprite the class that its own name begins with.
"""

from typing import Any

import cv2
import numpy as np

from illama_seg.datasets.scenes.canvas import Scene, Sprite, Texture
from illama_seg.datasets.scenes.colours import (
    Array,
    Rng,
    any_colour,
    hsv,
    noise,
    stone,
    tint,
)


def tree(rng: Rng, s: float, c: Scene) -> Sprite:
    h, hue = rng.uniform(4.5, 8), c.leaf_hue + rng.normal(0, 0.035)
    leaf = hsv(hue, rng.uniform(0.35, 0.7), rng.uniform(0.28, 0.6))
    bark = hsv(0.07, rng.uniform(0.15, 0.4), rng.uniform(0.18, 0.4))
    if rng.random() < 0.3:  # conifer
        w = h * rng.uniform(0.4, 0.55)
        t = Sprite(s, w, h)
        t.rect(w * 0.46, 0, w * 0.54, h * 0.3, bark)
        for k in np.linspace(0, 1, 7):
            half, y = w / 2 * (1 - 0.85 * k), h * (0.12 + 0.72 * k)
            x = np.linspace(-half, half, 9)
            low = y + np.where(np.arange(9) % 2, 0.05, 0) * h * rng.uniform(0.4, 1, 9)
            skirt = [*zip(x + w / 2, low, strict=True), (w / 2, y + h * 0.24)]
            t.poly(skirt, leaf * (0.7 + 0.1 * rng.random() + 0.35 * k))
    else:
        w = h * (rng.uniform(0.3, 0.4) if rng.random() < 0.2 else rng.uniform(0.6, 0.9))
        t, cy, ry = Sprite(s, w, h), h * 0.63, h * 0.37
        stem = [(0.42, 0), (0.58, 0), (0.53, 0.5), (0.47, 0.5)]
        t.poly([(w / 2 + (x - 0.5) * h * 0.6, y * h) for x, y in stem], bark)
        for _ in range(60 if s > 10 else 25):
            a, r = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random()) * 0.8
            x, y, b = r * np.cos(a), r * np.sin(a), rng.uniform(0.14, 0.26)
            tone = 0.85 + 0.3 * y + 0.2 * x * c.side * c.sun + rng.normal(0, 0.13)
            x, y, rx = w / 2 * (1 + x), cy + y * ry, w / 2 * b
            t.disc(x, y, rx, ry * b, leaf * max(tone, 0.3))
    mottle = noise(rng, t.part.shape, max(0.5 * s, 3), 3)
    t.rgb *= cv2.merge([np.clip(1 + 0.13 * mottle, 0.4, 1.6)] * 3)
    return t


def person(rng: Rng, s: float, c: Scene) -> Sprite:
    h, w = rng.uniform(1.6, 1.9), 1.0
    p, top, legs = Sprite(s, w, h), any_colour(rng), any_colour(rng) * 0.8
    skin = hsv(rng.uniform(0.03, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.9))
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


def _wheels(v: Sprite, centres: Any, r: float) -> None:
    for x in centres:
        v.disc(x, r, r, r, (0.08, 0.08, 0.09))
        v.disc(x, r, r * 0.55, r * 0.55, (0.5, 0.5, 0.52))


def _glass(rng: Rng, c: Scene) -> Array:
    return np.asarray(0.12 + c.top * rng.uniform(0.1, 0.45), np.float32)


def car(rng: Rng, s: float, c: Scene) -> Sprite:
    """A car from its side."""
    n, h, body = rng.uniform(4.0, 4.6), rng.uniform(1.45, 1.7), any_colour(rng)
    v, glass, back = Sprite(s, n, h), _glass(rng, c), rng.uniform(0.04, 0.2)
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


def car_end(rng: Rng, s: float, c: Scene) -> Sprite:
    """A car from its front or back."""
    w, h, body = 1.85, rng.uniform(1.45, 1.75), any_colour(rng)
    v, back = Sprite(s, w, h), rng.random() < 0.5
    for x in (0.12, w - 0.37):
        v.rect(x, 0, x + 0.25, 0.4, (0.07, 0.07, 0.08))
    v.poly([(0.03, 0.22), (w - 0.03, 0.22), (w, 0.6), (w - 0.08, h * 0.6),
            (w - 0.3, h), (0.3, h), (0.08, h * 0.6), (0, 0.6)], body)  # fmt: skip
    v.poly([(0.2, h * 0.6), (w - 0.2, h * 0.6), (w - 0.37, h * 0.94),
            (0.37, h * 0.94)], _glass(rng, c))  # fmt: skip
    lights = (0.75, 0.08, 0.06) if back else (0.97, 0.95, 0.85)
    v.rect(0.06, h * 0.42, 0.42, h * 0.54, lights)
    v.rect(w - 0.42, h * 0.42, w - 0.06, h * 0.54, lights)
    v.rect(0.03, 0.22, w - 0.03, 0.36, body * 0.4)
    v.rect(w / 2 - 0.26, 0.4, w / 2 + 0.26, 0.54, (0.85, 0.85, 0.8))
    return v


def bus(rng: Rng, s: float, c: Scene) -> Sprite:
    """A bus from its side: one long box with a band of windows."""
    n, h, body, trim = rng.uniform(7.5, 9.5), 3.1, any_colour(rng), any_colour(rng)
    v, glass = Sprite(s, n, h), _glass(rng, c)
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


def bus_end(rng: Rng, s: float, c: Scene) -> Sprite:
    """A bus from its front or back."""
    w, h, body = 2.6, 3.2, any_colour(rng)
    v, glass = Sprite(s, w, h), _glass(rng, c)
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


def signboard(rng: Rng, s: float, c: Scene) -> Sprite:
    """A billboard with lettering on posts, or a road sign; the posts bear no label."""
    face, ink, post = any_colour(rng), any_colour(rng), stone(rng) * 0.6
    ink = ink * 0.3 if face.mean() > 0.5 else 1 - ink * 0.3
    if rng.random() < 0.6:
        w, tall = rng.uniform(2.6, 4.2), rng.uniform(1.5, 2.3)
        foot = rng.uniform(0.9, 2.0)
        b = Sprite(s, w, foot + tall)
        for x in (0.2, 0.75):
            b.rect(w * x, 0, w * x + 0.16, foot, post, 2)
        b.rect(0, foot, w, foot + tall, ink)
        b.rect(0.12, foot + 0.12, w - 0.12, foot + tall - 0.12, face)
        for y in np.arange(foot + 0.3, foot + tall - 0.45, 0.5):
            for x in np.arange(0.3, w - rng.uniform(0.4, 1.2), 0.32):
                x1, y1 = x + rng.uniform(0.12, 0.26), y + rng.uniform(0.2, 0.34)
                b.rect(x, y, x1, y1, ink)
        return b
    d, foot = rng.uniform(1.1, 1.5), rng.uniform(1.3, 1.9)
    b, r, y = Sprite(s, d, foot + d), d / 2, foot + d / 2
    b.rect(r - 0.07, 0, r + 0.07, foot + 0.2, post, 2)
    corners, turn = [(18, 0.0), (3, 0.25), (4, 0.25), (8, 0.0625)][rng.integers(4)]
    a = (np.arange(corners) / corners + turn) * 2 * np.pi
    star = np.stack([np.cos(a), np.sin(a)], 1)
    for k, colour in ((1.0, ink), (0.78, face)):
        b.poly(star * r * k + (r, y), colour)
    b.rect(r - 0.1, y - r * 0.35, r + 0.1, y + r * 0.35, ink)
    return b


def lamp(rng: Rng, s: float, c: Scene) -> Sprite:
    b, tone = Sprite(s, 1.6, 5.5), stone(rng) * 0.5
    b.rect(0.74, 0, 0.88, 5.4, tone, 2)
    b.rect(0.74, 5.3, 1.5, 5.45, tone, 2)
    b.rect(1.1, 5.15, 1.6, 5.32, (0.95, 0.93, 0.8), 2)
    return b


def house(rng: Rng, s: float, c: Scene) -> Sprite:
    """Walls, a door, windows and a pitched roof, gable or eaves to the front."""
    w, eaves = rng.uniform(7, 10), rng.uniform(2.8, 3.6) * rng.choice([1, 1, 1.6])
    roof, wall, tile = rng.uniform(2.0, 3.4), any_colour(rng), stone(rng)
    wall, tile = 0.5 * wall + 0.4, tile * rng.uniform(0.5, 0.9) * (1, 0.9, 0.85)
    b, glass = Sprite(s, w, eaves + roof + 0.4), _glass(rng, c)
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
    b.rect(door, 0, door + 1.1, 2.1, any_colour(rng) * 0.7)
    for x in (0.14 * w, 0.7 * w):
        for y in np.arange(0.9, eaves - 1.2, 2.4):
            b.rect(x - 0.1, y - 0.1, x + 1.4, y + 1.4, (0.9, 0.9, 0.88))
            b.rect(x, y, x + 1.3, y + 1.3, glass)
            b.rect(x + 0.6, y, x + 0.7, y + 1.3, (0.9, 0.9, 0.88))
    return b


def facade(rng: Rng, c: Scene, height: float) -> Texture:
    """Storeys of windows in brick, plaster or glass, with shops at the foot."""
    wall = 0.55 * any_colour(rng) + 0.45 * stone(rng)
    shop, glass, floor = any_colour(rng), _glass(rng, c), rng.uniform(2.8, 3.6)
    pitch, wide, tall = rng.uniform((2, 0.4, 0.4), (3.6, 0.9, 0.7)).tolist()
    tone, lit = rng.normal(0, 0.08, (64, 64)), rng.random((64, 64))
    glow = 0.25 if c.light.mean() < 0.75 else 0.06

    def texture(u: Array, v: Array) -> Array:
        i: Array = np.asarray(u // pitch, np.int32) % 64
        j: Array = np.asarray(np.clip(v, 0, 99) // floor, np.int32)
        fu, fv = u / pitch % 1 - 0.5, v / floor % 1 - 0.5
        brick = tone[np.int32(v // 0.35) % 64, np.int32(u // 0.8) % 64]
        rgb = tint(1 + brick * 0.8 - 0.2 * (np.abs(fv) > 0.47), wall)
        rgb[j == 0] = shop * 0.8
        half = np.where(j == 0, 0.85, wide) / 2
        pane = (np.abs(fu) < half) & (np.abs(fv) < tall / 2) & (v < height - 0.9)
        gleam = lit[j[pane] % 64, i[pane]]
        rgb[pane] = glass * (0.7 + 0.7 * gleam[:, None])
        rgb[pane & (lit[j % 64, i] < glow)] = (1.0, 0.85, 0.5)
        rgb[v > height - 0.5] = wall * 0.7
        return rgb

    return texture


def fence(rng: Rng) -> tuple[Texture, float]:
    """Boards, upright with pointed tops or lengthwise between posts."""
    wood = 0.5 * any_colour(rng) + 0.5 * hsv(0.08, 0.35, rng.uniform(0.3, 0.9))
    board, height = rng.uniform(0.24, 0.42), rng.uniform(1.2, 1.8)
    point, tone = rng.choice([0.0, 0.25]), rng.normal(0, 0.1, 64)
    upright = rng.random() < 0.7

    def texture(u: Array, v: Array) -> Array:
        across = u if upright else v
        f = across / board % 1
        shade = 1 + tone[np.int32(across // board) % 64]
        shade -= 0.45 * (np.abs(f - 0.5) > 0.36)
        if not upright:
            shade = np.where(u % 2.2 < 0.2, 0.6, shade)
        tops = np.abs(f - 0.5) * 2 * point * upright
        return np.concatenate([wood * shade[..., None], tops[..., None]], -1)

    return texture, height
