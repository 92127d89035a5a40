"""Read images as a config does; find and write image files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.registry import TRANSFORMS

from illama_seg.errors import MissingFileError
from illama_seg.images import IMAGE_SUFFIXES, UnwritableError, find_images, write_image

__all__ = [
    'IMAGE_SUFFIXES',
    'UnwritableError',
    'find_images',
    'read_image',
    'write_image',
]


def read_image(path: str | Path, loader: Mapping | None = None) -> np.ndarray:
    """Read an image as the first step of a config's pipeline does.

    Args:
        path: path of the image.
        loader: config of this step, such as ``model.cfg.test_pipeline[0]``; by default
            mmcv's ``LoadImageFromFile``, which makes three channels of 8 bits of any
            image.

    Returns:
        (H, W, 3) uint8, BGR, by default; (H, W) or (H, W, bands) of any type by others.

    Raises:
        MissingFileError: if there is no such file.
        UserError: names a file that is no image, is damaged, has too many pixels, or
            more bands than the loader reads.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'no image {path}')
    load = TRANSFORMS.build(dict(loader or dict(type='LoadImageFromFile')))
    return load(dict(img_path=str(path)))['img']
