"""The models of the page: work dirs of trainings, and exported files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

from illama_seg.apis.images import read_image
from illama_seg.apis.models import annotation_ids, dataset_meta, load_segmentor
from illama_seg.apis.prediction import predict
from illama_seg.apis.work_dir import find_run
from illama_seg.datasets.decoding import as_picture, loads_bgr
from illama_seg.deploy import ExportedModel, is_exported
from illama_seg.errors import UserError
from illama_seg.images import read_bgr

MAX_PIXELS = 64_000_000  # of an image: 8,000 x 8,000
MAX_FILE = 64 * 2**20  # bytes of an image file


@dataclass
class ShownModel:
    """A segmentor of the page.

    Attributes:
        name: shown above its results.
        source: work dir or file.
        classes: names.
        palette: RGB colour of each class.
        ids: number of each class in label images.
        segment: path of an image -> image (H, W, 3) uint8 BGR and labels (H, W) uint8.
    """

    name: str
    source: Path
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    ids: np.ndarray
    segment: Callable[[Path], tuple[np.ndarray, np.ndarray]]


def open_models(sources: Sequence[str | Path]) -> list[ShownModel]:
    """Open work dirs of trainings and exported files.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if one of them is no segmentor.
    """
    models: list[ShownModel] = []
    for source in map(Path, sources):
        opened = _exported(source) if is_exported(source) else _trained(source)
        known = [model.name for model in models]
        if opened.name in known:
            opened.name = f'{opened.name} ({len(known) + 1})'
        models.append(opened)
    return models


def _trained(run: Path) -> ShownModel:
    cfg, checkpoint, _ = find_run(run)
    model: Any = load_segmentor(cfg, checkpoint, fold=True)
    meta, loader = dataset_meta(model), model.cfg.test_pipeline[0]
    is_bgr = loads_bgr(TRANSFORMS.build(loader))

    def segment(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = read_image(path, loader)
        return as_picture(image, is_bgr), predict(model, image)

    ids = annotation_ids(meta)
    return ShownModel(run.name, run, meta['classes'], meta['palette'], ids, segment)


def _exported(file: Path) -> ShownModel:
    model = ExportedModel(file)
    sidecar = model.sidecar
    if sidecar.task != 'segmentation':
        raise UserError(f'{file} classifies: the page shows segmentations')

    def segment(path: Path) -> tuple[np.ndarray, np.ndarray]:
        image = read_bgr(path)
        return image, model.segment(image)

    ids = np.asarray(sidecar.ids, np.uint8)
    return ShownModel(file.name, file, sidecar.classes, sidecar.palette, ids, segment)


def check_image(path: Path) -> None:
    """Refuse a file that is too large, or that is no image, before it is decoded.

    Raises:
        UserError: says the limit, or that the file is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    if path.stat().st_size > MAX_FILE:
        raise UserError(
            f'the file has {path.stat().st_size / 2**20:.0f} MiB, allowed are '
            f'{MAX_FILE >> 20}: upload a smaller one'
        )
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height <= MAX_PIXELS:
                # All of the file is read; of a JPEG a small version is enough.
                image.draft(None, (max(width // 8, 1), max(height // 8, 1)))
                image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UserError('this is no image, or a damaged one: upload another') from error
    except Image.DecompressionBombError as error:
        raise UserError(
            f'the image has more than {MAX_PIXELS:,} pixels: upload a smaller one'
        ) from error
    if width * height > MAX_PIXELS:
        raise UserError(
            f'the image has {width * height:,} pixels, allowed are {MAX_PIXELS:,}: '
            'upload a smaller one'
        )


def shrunk(image: np.ndarray, side: int, method: int = cv2.INTER_AREA) -> np.ndarray:
    """Shrink an image or labels so that no side is longer than ``side`` pixels."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(length * factor)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=method)
