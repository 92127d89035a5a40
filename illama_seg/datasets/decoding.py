"""Decoding of images by a config's loader, and pictures of any number of bands."""

from __future__ import annotations

import os
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.image.io import imread_flags, supported_backends
from mmengine.registry import TRANSFORMS

from illama_seg.datasets.images import bombs_refused, check_image
from illama_seg.datasets.tiff import TIFF_PACKAGES, read_tiff, tiff_header
from illama_seg.errors import UserError

KEEPS_VALUES = "color_type='unchanged', to_float32=True"
_DEEP_PNG = b'\x89PNG\r\n\x1a\n'


def check_decoder(color_type: str, backend: str) -> None:
    """Refuse a color_type or an imdecode_backend that mmcv does not know.

    Raises:
        UserError: names the option and the known values.
    """
    for option, value, known in (
        ('color_type', color_type, imread_flags),
        ('imdecode_backend', backend, supported_backends),
    ):
        if value not in known:
            raise UserError(
                f'LoadImageFromFile {option}={value!r}: expected one of '
                f'{", ".join(map(repr, known))}'
            )


def decode_image(
    path: str | os.PathLike,
    content: bytes,
    color_type: str = 'color',
    backend: str = 'cv2',
) -> np.ndarray:
    """Decode an image as mmcv does, but nothing that its decoder would read wrongly.

    Args:
        path: path for messages.
        content: content of the file.
        color_type: 'color' (three channels of 8 bits), 'grayscale', 'unchanged', ...
        backend: 'cv2' and the others of mmcv; their order of colours is BGR, that of
            'tifffile' is the file's.

    Returns:
        (H, W), or (H, W, channels).

    Raises:
        UserError: names a file that is damaged or has too many pixels, and the option
            that reads what the decoder cannot.
    """
    check_image(path, content, is_known=True)
    if backend == 'tifffile':
        return read_tiff(path, content)
    if backend == 'cv2':
        _check_bands(path, content, color_type)
    try:
        with bombs_refused(path):
            image = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    except UserError:
        raise
    except Exception as error:  # every decoder has errors of its own
        if 'MAX_IMAGE' in str(error):
            raise UserError(
                f'{path} has more pixels or a longer side than OpenCV decodes: set '
                'the variables OPENCV_IO_MAX_IMAGE_PIXELS (2^29 if unset), _WIDTH and '
                '_HEIGHT of the environment'
            ) from error
        image = None
    if image is None:
        header = tiff_header(content)
        if header is None:
            raise UserError(
                f'{path} ({len(content)} bytes) is damaged or no image that {backend} '
                'decodes'
            )
        raise UserError(
            f'{path}: {backend} does not decode this TIFF ({header.bands} bands of '
            f'{header.bits} bits) with color_type={color_type!r}: set '
            f"{KEEPS_VALUES} in LoadImageFromFile, or imdecode_backend='tifffile' "
            f'(pip install {TIFF_PACKAGES})'
        )
    return image


def _check_bands(path: str | os.PathLike, content: bytes, color_type: str) -> None:
    """Refuse a TIFF of which OpenCV leaves out bands, or mixes them up."""
    header = tiff_header(content)
    if header is None:
        return
    obstacle = header.obstacle
    if header.has_alpha and color_type == 'unchanged':
        obstacle = 'an alpha channel, by which OpenCV would multiply the colours'
    if obstacle:
        raise UserError(
            f'{path} has {obstacle}: OpenCV does not read it rightly. Set '
            "imdecode_backend='tifffile' in LoadImageFromFile of each pipeline, and "
            f'model.backbone.in_channels={header.bands} (pip install {TIFF_PACKAGES})'
        )


def stored_values(path: str | os.PathLike, content: bytes) -> np.ndarray | None:
    """Decode a file of more than 8 bits as it is; None for any other, or a failure."""
    header = tiff_header(content)
    if header is None and not (content[:8] == _DEEP_PNG and content[24:25] == b'\x10'):
        return None
    if header is not None and header.bits <= 8:
        return None
    try:
        if header is None or not header.obstacle:
            return decode_image(path, content, 'unchanged')
        return read_tiff(path, content)
    except UserError:
        return None


def check_finite(path: str | os.PathLike, image: np.ndarray) -> None:
    """Refuse an image with NaN or infinite values, which end in a loss of NaN.

    Raises:
        UserError: names the file, the number of values and the fix.
    """
    if image.dtype.kind == 'f' and (wrong := np.count_nonzero(~np.isfinite(image))):
        raise UserError(
            f'{path}: {wrong:,} of {image.size:,} values are not finite (NaN or '
            'infinite): write a number in their place, such as the mean of the band, '
            'and 255 (ignored) into the annotation there'
        )


def image_loader(dataset: Any) -> Any:
    """Return the transform that loads a data set's images, the first of its pipeline.

    A data set without a pipeline is read by ``LoadImageFromFile``.
    """
    # A wrapper; one that mixes images has a pipeline too, for what is loaded.
    while inner := getattr(dataset, 'dataset', None) or getattr(
        dataset, 'datasets', None
    ):
        dataset = inner[0] if isinstance(inner, list) else inner
    steps = dataset.pipeline.transforms
    return steps[0] if steps else TRANSFORMS.build(dict(type='LoadImageFromFile'))


def loads_bgr(step: Any) -> bool:
    """Return whether a loading transform gives colours as blue, green, red.

    Other loaders than mmcv's keep the order of the file.
    """
    return getattr(step, 'imdecode_backend', 'tifffile') != 'tifffile'


def as_picture(image: np.ndarray, is_bgr: bool = True) -> np.ndarray:
    """Make a picture of an image of any number of bands and any depth.

    One band, or the first of two, is grey; of three or more the first three are the
    colours. Values of other than 8 bits are stretched from their first percentile to
    their 99th.

    Args:
        image: (H, W) or (H, W, bands), as loaded or as a pipeline left it.
        is_bgr: the first three bands are blue, green, red, not red, green, blue.

    Returns:
        (H, W, 3) uint8, BGR; the image itself where it is such a one.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] != 3:
        image = image[..., : 3 if image.shape[2] > 3 else 1]
    if image.dtype != np.uint8:
        values = np.nan_to_num(image.astype(np.float32), posinf=0, neginf=0)
        low, high = np.percentile(values[:: max(len(values) // 512, 1)], (1, 99))
        scale = 255 / max(high - low, 1e-6)
        image = np.clip((values - low) * scale, 0, 255).astype(np.uint8)
    if image.shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image if is_bgr else image[..., ::-1])
