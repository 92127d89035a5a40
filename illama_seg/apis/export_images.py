"""Images that an export is calibrated and compared on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from illama_seg.apis.images import find_images, read_image
from illama_seg.apis.prediction import without_annotations
from illama_seg.apis.user_errors import options_explained
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.deploy import Sidecar
from illama_seg.errors import MissingFileError, UserError
from illama_seg.images import read_bgr

# Image and, where it is known, annotation: (H, W) class numbers, or a class number.
Example = tuple[np.ndarray, Any]


def load_examples(
    cfg: Config, model: Any, images: Sequence[str | Path], count: int
) -> list[Example]:
    """Load images to compare on, spread over the folder or the validation data."""
    if images:
        paths = _spread([path for path, _ in find_images(images)], count)
        if not hasattr(model, 'decode_head'):
            return [(read_bgr(path), None) for path in paths]
        (loader,) = without_annotations(cfg.test_pipeline)[:1]
        return [(read_image(path, loader), None) for path in paths]
    try:
        if hasattr(model, 'decode_head'):
            data: Any = LabelledImages(cfg, 'val')
            return [data[i][:2] for i in _spread(range(len(data)), count)]
        data = _classified(cfg, 'val')
        return [_image_of(data, i) for i in _spread(range(len(data)), count)]
    except MissingFileError as error:
        raise MissingFileError(
            f'{error}\nThe file is compared with the model on images of the validation '
            'data: get it, or name other images (images)'
        ) from error


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round()
    return [items[place] for place in places.astype(int).tolist()]


def _classified(cfg: Config, split: str) -> Any:
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    settings = cfg[f'{split}_dataloader'].dataset
    with options_explained(cfg):
        return DATASETS.build(dict(settings, pipeline=settings.pipeline[:1]))


def _image_of(data: Any, index: int) -> Example:
    sample = data[index]
    image = np.asarray(sample['img'].convert('RGB'))[..., ::-1]
    return np.ascontiguousarray(image), int(sample['gt_label'])


def load_calibration(
    cfg: Config, model: Any, sidecar: Sidecar, count: int
) -> list[np.ndarray]:
    """Load training images as the file takes them, one window of each."""
    segments = hasattr(model, 'decode_head')
    data = LabelledImages(cfg, 'train') if segments else _classified(cfg, 'train')
    if len(data) < count:
        raise UserError(
            f'the training data has {len(data)} images: name that many or fewer',
            calibrate=count,
        )
    order = np.random.default_rng(0).permutation(len(data))[:count]
    windows = []
    for index in tqdm(sorted(order.tolist()), 'calibrating', unit='image'):
        image = data[index][0] if segments else _image_of(data, index)[0]
        windows.append(first_window(sidecar, image))
        found = list(windows[-1].shape[2:])
        if sidecar.size and found != sidecar.size:
            raise UserError(
                f'image {index} of the training data is {found} pixels after resizing, '
                f'the file takes {sidecar.size}: set dynamic'
            )
    return windows


def first_window(sidecar: Sidecar, image: np.ndarray) -> np.ndarray:
    """Normalise the first window of an image that the file takes."""
    size = sidecar.size or (sidecar.windows and sidecar.windows['crop'])
    prepared = sidecar.prepared(image)
    if size:
        prepared = prepared[: size[0], : size[1]]
    return sidecar.normalised(prepared)


def images_of_size(
    sidecar: Sidecar, image: np.ndarray, size: tuple[int, ...]
) -> np.ndarray:
    """Resize an image to (height, width), and normalise it and its mirror image."""
    resized = cv2.resize(image, size[::-1])
    resized = resized[..., None] if resized.ndim == 2 else resized
    return np.concatenate(
        [sidecar.normalised(resized), sidecar.normalised(resized[:, ::-1])]
    )
