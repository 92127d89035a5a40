"""A classification data set of crops of the scenes."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.datasets.scenes.canvas import SCENE_IDS
from illama_seg.datasets.scenes.colours import Array
from illama_seg.datasets.scenes.writer import make_scene, save_image
from illama_seg.errors import UserError

VERSION = 1
SIZE = (160, 208)  # of the scenes
SPLITS = {'train': 'training', 'val': 'validation'}
# More scenes than this for a crop of each class are an error.
MAX_SCENES = 40


def scene_crops(
    seed: int, split: str, index: int, side: int
) -> Iterator[tuple[str, Array]]:
    """Yield two crops of each class of a scene, with their middle away from its border.

    Args:
        seed: seed of the scenes, at least 0.
        split: 'train' or 'val'.
        index: number of the scene in its split.
        side: side of a crop in pixels.

    Yields:
        Class of the crop's middle, and the crop: uint8 RGB (side, side, 3).
    """
    image, label = make_scene(seed, SPLITS[split], index, SIZE)
    rng = np.random.default_rng([seed, index])
    half = side // 2
    inner = label[half : SIZE[0] - side + half + 1, half : SIZE[1] - side + half + 1]
    for name, number in SCENE_IDS.items():
        places = np.argwhere(inner == number)
        if len(places):
            for top, left in rng.choice(places, 2):
                yield name, image[top : top + side, left : left + side]


def write_scene_crops(
    root: str | Path,
    num_train: int = 300,
    num_val: int = 30,
    *,
    side: int = 64,
    seed: int = 1,
    workers: int = 2,
) -> dict:
    """Write crops of scenes as ``root/{train,val}/CLASS/*.jpg``.

    The scenes are drawn for the crops and not kept. The default seed gives other scenes
    than the demo's.

    Args:
        root: folder to write; new, empty, or already holding this very data set.
        num_train: crops of each class in ``train``.
        num_val: crops of each class in ``val``.
        side: side of a crop in pixels.
        seed: seed of the scenes.
        workers: threads that draw.

    Returns:
        Content of ``root/crops.json``: the parameters and the number of scenes.

    Raises:
        UserError: if an argument is out of its range, or ``root`` holds other files.
    """
    if min(num_train, num_val) < 1 or not 8 <= side <= min(SIZE):
        raise UserError(
            f'num_train={num_train}, num_val={num_val}, side={side}: expected at least '
            f'1 crop of each class, and a side from 8 to {min(SIZE)}'
        )
    root, note = Path(root), Path(root) / 'crops.json'
    counts = {'train': num_train, 'val': num_val}
    made = dict(version=VERSION, seed=seed, side=side, counts=counts)
    if root.exists() and any(root.iterdir()):
        found = json.loads(note.read_text()) if note.is_file() else {}
        if {key: found.get(key) for key in made} != made:
            raise UserError(
                f'{root} holds other files, or other crops than {made}; choose another '
                'folder, or delete this one first'
            )
        if 'scenes' in found:
            print_log(f'{root} already holds these crops', 'current', logging.INFO)
            return found
    for split in counts:
        for name in SCENE_IDS:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(made))
    with ThreadPoolExecutor(workers) as pool:
        scenes = {
            split: _write_split(
                root / split, split, count, side=side, seed=seed, pool=pool
            )
            for split, count in counts.items()
        }
    note.write_text(json.dumps(made | dict(scenes=scenes), indent=1))
    return made | dict(scenes=scenes)


def _write_split(
    folder: Path,
    split: str,
    count: int,
    *,
    side: int,
    seed: int,
    pool: ThreadPoolExecutor,
) -> int:
    done: Counter[str] = Counter()
    batch = 16
    bar = tqdm(total=count * len(SCENE_IDS), desc=split, unit='crop', disable=None)
    for first in range(0, MAX_SCENES * count + batch, batch):
        for crops in pool.map(
            lambda index: list(scene_crops(seed, split, index, side)),
            range(first, first + batch),
        ):
            for name, crop in crops:
                if done[name] < count:
                    path = folder / name / f'{done[name]:05d}.jpg'
                    quality = cv2.IMWRITE_JPEG_QUALITY, 92
                    save_image(path, '.jpg', crop[..., ::-1], *quality)
                    done[name] += 1
                    bar.update()
        if done.total() == count * len(SCENE_IDS):
            bar.close()
            return first + batch
    raise RuntimeError(f'{MAX_SCENES * count} scenes have too few crops: {done}')
