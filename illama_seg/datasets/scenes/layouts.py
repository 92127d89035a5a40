"""Kinds of scenes: what stands where."""

from typing import Any

import numpy as np

from illama_seg.datasets.scenes.canvas import Scene
from illama_seg.datasets.scenes.colours import Array, tint
from illama_seg.datasets.scenes.land import backdrop, lay
from illama_seg.datasets.scenes.things import (
    bus,
    bus_end,
    car,
    car_end,
    facade,
    fence,
    house,
    lamp,
    person,
    signboard,
    tree,
)


def _mark(c: Scene, where: Array) -> None:
    colour = (0.9, 0.9, 0.86) if c.rng.random() < 0.75 else (0.85, 0.68, 0.2)
    where = where & (c.grain(3) < 1.4) & (c.Z < 60)
    rgb = tint(np.ones_like(c.Z), np.array(colour))
    c.paint(where, rgb, 'road', c.Z, np.s_[c.low :])


def _road_ahead(c: Scene, x0: float, half: float, bend: float, walk: float) -> None:
    """A road toward the vanishing point with sidewalks `walk` metres wide."""
    off = c.X - x0 - bend * np.minimum(c.Z, 200) ** 2
    if walk:
        lay(c, 'sidewalk', np.abs(off) < half + walk)
    lay(c, 'road', np.abs(off) < half)
    _mark(c, (np.abs(off) < 0.11) & (c.Z % 5 < 2.8))
    if c.rng.random() < 0.6:
        _mark(c, np.abs(np.abs(off) - half + 0.35) < 0.08)


def _fence_line(c: Scene, x: Any, z: Any, step: float = 5) -> None:
    """A fence in short lengths, so that it sorts well among other things."""
    texture, height = fence(c.rng)
    if np.ndim(z):
        for a in np.arange(z[0], z[1], step):
            c.wall('fence', texture, x, (a, a + step), height=height)
    else:
        c.wall('fence', texture, x, z, height=height)


def _crowd(c: Scene, n: Any, x: Any, z: Any) -> None:
    for _ in range(n):
        c.place(person, c.rng.uniform(*x), c.rng.uniform(*z))


def _far_trees(c: Scene, z: float, share: float) -> None:
    reach = 0.6 * c.w * z / c.focal
    for x in np.arange(-reach, reach, 4):
        if c.rng.random() < share:
            c.place(tree, x + c.rng.uniform(-2, 2), z * c.rng.uniform(0.9, 1.2))


def _street(c: Scene) -> None:
    """Down a street: walls of buildings (city) or houses in gardens (suburb)."""
    rng, city = c.rng, c.rng.random() < 0.55
    backdrop(c, 0.35)
    half, walk = rng.uniform(3.2, 4.8), rng.uniform(2.2, 3.6)
    x0, bend = rng.uniform(-2, 2), 0 if city else rng.uniform(-0.003, 0.003)
    lay(c, 'grass', c.Z > 0)
    _road_ahead(c, x0, half, bend, walk)
    _far_trees(c, 75, 0.6)
    for side in (-1, 1):
        edge = x0 + side * (half + walk)
        z = rng.uniform(5, 9)
        open_side = rng.random() < 0.2
        while city and not open_side and z < 70:
            deep, height = rng.uniform(9, 18), rng.uniform(6, 18)
            if rng.random() < 0.85:
                texture, outer = facade(rng, c, height), edge + side * 14
                c.wall(
                    'building',
                    texture,
                    sorted((edge, outer)),
                    z,
                    height=height,
                    order=deep,
                )
                c.wall('building', texture, edge, (z, z + deep), height=height)
            z += deep + rng.choice([0, 3])
        if not city or open_side:
            if rng.random() < 0.7:
                _fence_line(c, edge + side * 0.4, (rng.uniform(5, 12), 45))
            for z in np.arange(rng.uniform(12, 18), 60, 13):
                x = edge + side * rng.uniform(6, 8) + bend * z**2
                c.place(house if rng.random() < 0.75 else tree, x, z)
                c.place(tree, edge + side * rng.uniform(2, 12) + bend * z**2, z + 6)
        if rng.random() < 0.5:
            for z in np.arange(rng.uniform(9, 14), 45, 9):
                painter = tree if rng.random() < 0.7 else lamp
                c.place(painter, edge - side * (walk - 0.6) + bend * z**2, z)
        spot = sorted((edge - side * walk, edge))
        _crowd(c, rng.integers(0, 4), (spot[0] + 0.4, spot[1] - 0.4), (6.5, 20))
        if rng.random() < 0.5:
            c.place(signboard, edge - side * rng.uniform(0.3, 1.5), rng.uniform(9, 17))
        for z in np.arange(rng.uniform(8, 16), 40, rng.uniform(6, 14)):
            painter = bus_end if rng.random() < 0.3 else car_end
            lane = x0 + side * rng.uniform(0.42, 0.6) * half + bend * z**2
            if rng.random() < 0.6:
                c.place(painter, lane, z)


def _roadside(c: Scene) -> None:
    """Across a road: vehicles from the side, a row of buildings, houses or trees."""
    rng = c.rng
    kind = rng.choice(['city', 'suburb', 'open'], p=[0.4, 0.35, 0.25])
    backdrop(c, 0.8 if kind == 'open' else 0.35)
    z1 = rng.uniform(6.5, 9)
    z2 = z1 + rng.uniform(6, 8)
    z3 = z2 + rng.uniform(2, 4)
    lay(c, rng.choice(['grass', 'field', 'water'], p=[0.25, 0.5, 0.25])
        if kind == 'open' else 'grass', c.Z > 0)  # fmt: skip
    tilt = c.X * rng.uniform(-0.06, 0.06)
    z = c.Z + tilt
    lay(c, 'grass' if rng.random() < 0.4 else 'sidewalk', z < z1)
    lay(c, 'sidewalk', (z >= z2) & (z < z3))
    lay(c, 'road', (z >= z1) & (z < z2))
    _mark(c, (np.abs(z - (z1 + z2) / 2) < 0.12) & (c.X % 4 < 2.2))
    reach = 0.6 * c.w / c.focal
    far = z3 + rng.uniform(1, 3)
    x = -reach * far * 1.6 + rng.uniform(-4, 0)
    while kind == 'city' and x < reach * far * 1.6:
        wide, height = rng.uniform(8, 15), rng.uniform(6, 16)
        if rng.random() < 0.85:
            texture = facade(rng, c, height)
            c.wall('building', texture, (x, x + wide), far, height=height, order=5)
        x += wide + rng.choice([0, 2])
    while kind == 'suburb' and x < reach * far * 1.6:
        if rng.random() < 0.8:
            c.place(house, x, far + rng.uniform(4, 7))
        c.place(tree, x + 6, far + rng.uniform(2, 9))
        x += rng.uniform(11, 15)
    if kind != 'city':
        _far_trees(c, 50, rng.choice([0.2, 0.8]) if kind == 'suburb' else 0.15)
        if rng.random() < 0.75:
            a = rng.uniform(-1.5, 0) * reach * far
            _fence_line(c, (a, a + rng.uniform(8, 30)), z3 + 0.6)
    for _ in range(rng.integers(0, 4)):
        c.place(tree, rng.uniform(-1, 1) * reach * z3, z3 - rng.uniform(0, 0.5))
    for row in ((z1 * 0.3 + z2 * 0.7), (z1 * 0.8 + z2 * 0.2)):
        x = rng.uniform(-1.2, 0.3) * reach * row
        for _ in range(rng.integers(0, 3)):
            painter = bus if rng.random() < 0.35 else car
            c.place(painter, x, row)
            x += rng.uniform(9.5, 14)
    _crowd(c, rng.integers(0, 5), (-reach * z2, reach * z2), (z2 + 0.4, z3))
    _crowd(c, rng.integers(0, 3), (-reach * z1, reach * z1), (z1 - 1.2, z1 - 0.3))
    if rng.random() < 0.6:
        c.place(signboard, rng.uniform(-1, 1) * reach * z2, z2 + 0.5)


def _country(c: Scene) -> None:
    """Meadows and ploughed fields under mountains, a lane, a farm, a pond."""
    rng = c.rng
    backdrop(c, 0.85)
    lay(c, 'grass', c.Z > 0)
    split = rng.uniform(-4, 4) + rng.normal(0, 0.3) * c.Z
    right = rng.choice([-1, 1])
    if rng.random() < 0.85:
        lay(c, 'field', (c.X * right > split) & (c.Z > rng.uniform(4, 11)))
    pond = rng.random() < 0.4
    if pond:
        x, z = rng.uniform(-12, 12), rng.uniform(16, 26)
        oval = np.hypot((c.X - x) / rng.uniform(12, 22), (c.Z - z) / rng.uniform(6, 10))
        lay(c, 'water', oval + 0.06 * c.grain(40) < 1)
    x0, half = rng.uniform(-3, 3), rng.uniform(1.8, 3.2)
    bend = rng.uniform(-0.006, 0.006)
    lane = not pond and rng.random() < 0.7
    if lane:
        _road_ahead(c, x0, half, bend, 0)
    _far_trees(c, 70, rng.uniform(0, 0.7))
    for _ in range(rng.integers(1, 7)):
        side, z = rng.choice([-1, 1]), rng.uniform(11, 45)
        c.place(tree, x0 + side * (half + rng.uniform(2, 16)) + bend * z**2, z)
    for _ in range(rng.integers(0, 3)):
        side, z = rng.choice([-1, 1]), rng.uniform(17, 34)
        c.place(house, x0 + side * (half + rng.uniform(7, 16)) + bend * z**2, z)
    if rng.random() < 0.6:
        if rng.random() < 0.5:
            x = x0 + rng.choice([-1, 1]) * (half + 1.2)
            _fence_line(c, x, (rng.uniform(4, 8), 30))
        else:
            x = rng.choice([-1, 1]) * (half + 2) + x0
            _fence_line(c, sorted((x, np.sign(x) * 25)), rng.uniform(9, 15))
    if rng.random() < 0.35:
        c.place(signboard, x0 + rng.choice([-1, 1]) * (half + 2), rng.uniform(8, 15))
    if lane and rng.random() < 0.6:
        z = rng.uniform(10, 20)
        c.place(bus_end if rng.random() < 0.3 else car_end, x0 + bend * z**2, z)
    _crowd(
        c, rng.integers(0, 4), (x0 - half - 3, x0 + half + 3), (7, 9 if pond else 18)
    )


def _waterside(c: Scene) -> None:
    """Open water with a near shore or promenade and a far one."""
    rng = c.rng
    backdrop(c, 0.7)
    lay(c, 'water', c.Z > 0)
    lay(c, 'grass', c.Z > rng.uniform(70, 400))
    shore = rng.uniform(9, 18) + c.X * rng.uniform(-0.3, 0.3)
    paved = rng.random() < 0.55
    wavy = 0 if paved else 0.8 * c.grain(60)
    lay(c, 'sidewalk' if paved else 'grass', c.Z < shore + wavy)
    if paved and rng.random() < 0.5:
        lay(c, 'grass', c.Z < shore - rng.uniform(3, 5))
    if rng.random() < 0.6:
        _far_trees(c, 80, rng.uniform(0.2, 0.8))
    if rng.random() < 0.3:
        x = rng.uniform(-40, 20)
        for _ in range(rng.integers(2, 6)):
            wide, height = rng.uniform(9, 16), rng.uniform(7, 24)
            texture = facade(rng, c, height)
            c.wall('building', texture, (x, x + wide), 78, height=height)
            x += wide
    near = 8.5
    if rng.random() < 0.45:
        a = rng.uniform(-7, 0)
        _fence_line(c, (a, a + rng.uniform(5, 16)), near + rng.uniform(0, 2))
    for _ in range(rng.integers(0, 4)):
        c.place(tree, rng.choice([-1, 1]) * rng.uniform(2, 6), rng.uniform(8, 12))
    _crowd(c, rng.integers(1, 5), (-4, 4), (6.5, 10.5))
    if rng.random() < 0.5:
        c.place(signboard, rng.uniform(-4, 4), rng.uniform(8, 11))
    if rng.random() < 0.2:
        c.place(car, rng.uniform(-4, 4), near)


LAYOUTS = (_street, _roadside, _country, _waterside)
SHARES = (0.3, 0.3, 0.25, 0.15)
