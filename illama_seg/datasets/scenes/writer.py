"""Scenes by number, and data sets of them on disk."""

import json
import logging
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.datasets.scenes.canvas import SCENE_IDS, Scene
from illama_seg.datasets.scenes.colours import Array
from illama_seg.datasets.scenes.layouts import LAYOUTS, SHARES
from illama_seg.errors import UserError

SPLITS = ('training', 'validation')
VERSION = 1


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
        UserError: If an argument is out of its range.
    """
    _check_size(size)
    if split not in SPLITS:
        raise UserError(f'split must be one of {SPLITS}, got {split!r}')
    for name, value in (('seed', seed), ('index', index)):
        _check_count(name, value)
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = Scene(rng, *size)
    LAYOUTS[rng.choice(len(LAYOUTS), p=SHARES)](scene)
    return scene.finish()


def _check_size(size: Any) -> None:
    whole = all(isinstance(n, int | np.integer) for n in size)
    if len(size) != 2 or not whole or min(size) < 64:
        raise UserError(f'size must be (height, width), both >= 64, got {size!r}')


def _check_count(name: str, value: Any, least: int = 0) -> None:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise UserError(
            f'{name} must be >= {least}, got {value!r}; expected a whole number'
        )


def _paths(root: Path, split: str, index: int) -> tuple[Path, Path]:
    """Image and label of a scene."""
    name = f'{split}/scene_{index + 1:08d}'
    return root / 'images' / f'{name}.jpg', root / 'annotations' / f'{name}.png'


def save_image(path: Path, suffix: str, array: Array, *options: int) -> None:
    ok, data = cv2.imencode(suffix, array, options)
    if not ok:
        raise OSError(f'OpenCV could not encode {path}')
    path.write_bytes(data.tobytes())


def write_scenes(
    root: str | Path,
    num_train: int = 1000,
    num_val: int = 60,
    *,
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
        workers: Processes that draw, at least 1.

    Returns:
        Content of `root/scenes.json`: the parameters and, per class, the share of all
        pixels (`pixel_share`) and of the scenes it occurs in (`scene_share`), 0 to 1.

    Raises:
        UserError: If an argument is out of its range or `root` holds something else.
        PermissionError: If `root` cannot be written.
    """
    _check_size(size)
    counts = {'training': num_train, 'validation': num_val}
    for name, n in (('num_train', num_train), ('num_val', num_val), ('seed', seed)):
        _check_count(name, n)
    _check_count('workers', workers, least=1)
    root = Path(root)
    meta: dict[str, Any] = {
        'generator': 'illama_seg.datasets.scenes',
        'version': VERSION,
        'seed': int(seed),
        'size': [int(n) for n in size],
        'counts': {split: int(n) for split, n in counts.items()},
        'ids': SCENE_IDS,
    }
    jobs = [(split, index) for split, n in counts.items() for index in range(n)]
    note = root / 'scenes.json'
    try:
        found = _found(root, meta)
        paths = (path for job in jobs for path in _paths(root, *job))
        if 'pixel_share' in found and all(path.is_file() for path in paths):
            print_log(f'{root} already holds these scenes', 'current', logging.INFO)
            return found
        for path in (path for split in SPLITS for path in _paths(root, split, 0)):
            path.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(meta, indent=2) + '\n')
    except PermissionError as error:
        raise PermissionError(
            f'cannot write scenes to {root.resolve()}: {error.strerror}; '
            'choose a folder you may write to'
        ) from error

    work = partial(_write_scene, root, seed, size)
    with ProcessPoolExecutor(min(workers, max(1, len(jobs)))) as pool:
        made = pool.map(work, jobs, chunksize=8)
        done = tqdm(made, 'scenes', len(jobs), leave=False, disable=None)
        table = np.array(list(done)).reshape(-1, 151)
    pixels = table.sum(0) / max(table.sum(), 1)
    scenes = (table > 0).sum(0) / max(len(table), 1)
    ids = {'unlabelled': 0, **SCENE_IDS}
    meta['pixel_share'] = {name: round(float(pixels[i]), 5) for name, i in ids.items()}
    meta['scene_share'] = {name: round(float(scenes[i]), 4) for name, i in ids.items()}
    note.write_text(json.dumps(meta, indent=2) + '\n')
    print_log(f'Wrote {len(jobs)} scenes to {root}', 'current', logging.INFO)
    return meta


def _write_scene(
    root: Path, seed: int, size: tuple[int, int], job: tuple[str, int]
) -> Array:
    """Draw and write a scene; return the number of pixels of each id, (151,)."""
    image, label = make_scene(seed, *job, size)
    image_path, label_path = _paths(root, *job)
    save_image(image_path, '.jpg', image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 92)
    save_image(label_path, '.png', label)
    return np.bincount(label.ravel(), minlength=151)


def _found(root: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """Return the notes of an earlier run; raise UserError for another data set."""
    way_out = 'choose another folder, or delete this one first'
    if root.exists() and not root.is_dir():
        raise UserError(f'{root} is a file, not a folder; {way_out}')
    if not root.exists() or not any(root.iterdir()):
        return {}
    try:
        found = dict(json.loads((root / 'scenes.json').read_text()))
    except (FileNotFoundError, TypeError, ValueError):
        raise UserError(f'{root} holds files that are not scenes; {way_out}') from None
    other = [key for key, value in meta.items() if found.get(key) != value]
    if other:
        raise UserError(
            f'{root} holds scenes with another {", ".join(other)}; {way_out}'
        )
    return found
