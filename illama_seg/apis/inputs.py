"""Images as a script may have them: paths, arrays, Pillow's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from illama_seg.apis.images import read_image
from illama_seg.errors import UserError

AnyImage = np.ndarray | Image.Image | str | Path
EXPECTED = 'expected an array, a path or a PIL image'


def is_image(value: Any) -> bool:
    """Tell one image from several."""
    return isinstance(value, np.ndarray | Image.Image | str | Path)


def as_array(image: AnyImage, loader: Mapping) -> np.ndarray:
    """Return an image as the first step of a model's test pipeline would read it.

    Args:
        image: path; image of Pillow, whose orientation flag is not applied; or array,
            grey (H, W) or (H, W, 1), BGR (H, W, 3), or BGRA (H, W, 4), uint8.
        loader: config of the step. Where it reads other than three channels of 8 bits,
            an array is left as it is.

    Returns:
        (H, W, 3) uint8, BGR, by the default loader; (H, W) by one of grey images.

    Raises:
        UserError: names the type, shape or dtype, and what is expected.
    """
    if isinstance(image, str | Path):
        # mmseg's inference_model may have made the step one that reads arrays.
        is_file = loader.get('type') != 'LoadImageFromNDArray'
        return read_image(image, loader if is_file else None)
    is_usual = loader.get('type') in ('LoadImageFromFile', 'LoadImageFromNDArray')
    is_usual &= loader.get('imdecode_backend') != 'tifffile'
    colours = loader.get('color_type', 'color') if is_usual else ''
    if isinstance(image, Image.Image):
        if image.mode in ('I', 'F') or image.mode.startswith('I;'):
            raise UserError(
                f'the PIL image has mode {image.mode!r}: expected 8 bits a channel, '
                'such as RGB or L; or give its path'
            )
        if colours == 'grayscale':
            return np.asarray(image.convert('L'))
        if colours != 'color':
            raise UserError(
                'a PIL image has no order of bands that this model reads '
                f'(test_pipeline.0={dict(loader)}): give its path, or an array'
            )
        return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
    if not isinstance(image, np.ndarray):
        raise UserError(f'an image is a {type(image).__name__}: {EXPECTED}')
    if colours != 'color' or loader.get('to_float32'):
        return image
    if image.dtype != np.uint8:
        raise UserError(
            f'the array of shape {image.shape} is {image.dtype}: expected uint8, 0 to '
            '255. For values from 0 to 1: (255 * image).round().astype(np.uint8)'
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or not image.size:
        raise UserError(
            f'the array has shape {image.shape}: expected (H, W), (H, W, 1), (H, W, 3) '
            'in BGR or (H, W, 4) in BGRA; several images in a list'
        )
    if image.ndim == 2:
        image = image[..., None]
    image = np.repeat(image, 3, 2) if channels == 1 else image[..., :3]
    return np.ascontiguousarray(image)
