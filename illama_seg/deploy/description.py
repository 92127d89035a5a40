"""Describe how a config reads and normalises images, for a sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torchvision import transforms

from illama_seg.errors import UserError

LIBRARIES = ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf')
# Steps of a test pipeline that a sidecar can express, with the options allowed.
LOADING = ('LoadImageFromFile', 'LoadImageFromNDArray')
PACKING = ('PackSegInputs', 'PackClsInputs')
CHANNELS = 3  # of an image: of 8 bits, as the default loader reads it
READING = 'type', 'color_type', 'imdecode_backend', 'backend_args', 'ignore_empty'


def only_enlarges(model: Any) -> bool:
    """Return whether a segmentor does no more than to enlarge its head's logits."""
    head = getattr(model, 'decode_head', None)
    return type(model) is EncoderDecoder and all(
        getattr(type(head), name, None) is getattr(BaseDecodeHead, name)
        for name in ('predict', 'predict_by_feat')
    )


def describe_segmentor(
    cfg: Config, model: Any, steps: Sequence[Mapping]
) -> dict[str, Any]:
    """Describe a segmentor.

    Args:
        cfg: its config.
        model: mmseg's ``EncoderDecoder``.
        steps: its test pipeline without annotations.

    Returns:
        Keys of :class:`illama_seg.deploy.Sidecar`: task, channels, mean, std, to_rgb,
        resize, windows, align_corners, threshold.

    Raises:
        UserError: names a setting that an exported file cannot have.
    """
    head, preprocessor = model.decode_head, model.data_preprocessor
    if not only_enlarges(model):
        raise UserError(
            f'{cfg.filename}: {type(model).__name__} with {type(head).__name__} has an '
            "inference of its own: expected mmseg's EncoderDecoder and a decode head "
            'with its predict'
        )
    if preprocessor.test_cfg:
        raise UserError(
            f'{cfg.filename}: model.data_preprocessor.test_cfg pads images, which an '
            'exported file does not: set model.data_preprocessor.test_cfg=None'
        )
    resize = None
    for number, step in enumerate(steps):
        kind = step['type']
        if kind == 'Resize' and set(step) <= {'type', 'scale', 'keep_ratio'}:
            scale, keep = step['scale'], step.get('keep_ratio', False)
            sides = (scale, scale) if isinstance(scale, int) else scale
            resize = dict(scale=list(sides), keep_ratio=keep)
        elif kind in LOADING:
            _check_reading(cfg, step, number)
        elif kind not in PACKING:
            raise UserError(
                f'{cfg.filename}: test_pipeline.{number} ({dict(step)}) has no place '
                'in an exported file: expected LoadImageFromFile, Resize by scale and '
                'keep_ratio, and PackSegInputs'
            )
    test, windows = model.test_cfg, None
    if test.get('mode', 'whole') == 'slide':
        windows = dict(crop=list(test.crop_size), stride=list(test.stride))
    mean, std, to_rgb = _normalisation(preprocessor)
    return dict(
        task='segmentation',
        channels=CHANNELS,
        mean=mean,
        std=std,
        to_rgb=to_rgb,
        resize=resize,
        windows=windows,
        align_corners=bool(model.align_corners),
        threshold=float(head.threshold) if head.out_channels == 1 else None,
    )


def _check_reading(cfg: Config, step: Mapping, number: int) -> None:
    odd = set(step) - set(READING)
    if odd or step.get('color_type', 'color') != 'color':
        raise UserError(
            f'{cfg.filename}: test_pipeline.{number} ({dict(step)}) reads images in a '
            'way that an exported file does not: expected three channels of 8 bits'
        )


def _normalisation(preprocessor: Any) -> tuple[list[float], list[float], bool]:
    """Return mean and standard deviation, and whether BGR becomes RGB before."""
    values = []
    for name, default in (('mean', 0.0), ('std', 1.0)):
        found = [default]
        if preprocessor._enable_normalize:
            found = getattr(preprocessor, name).flatten().tolist()
        values.append(found * CHANNELS if len(found) == 1 else found)
    return values[0], values[1], bool(preprocessor._channel_conversion)


def describe_classifier(
    cfg: Config, model: Any, steps: Sequence[Mapping]
) -> dict[str, Any]:
    """Describe a classifier; see :func:`describe_segmentor`.

    Raises:
        UserError: names a step of the test pipeline that an exported file cannot have.
    """
    built = [TRANSFORMS.build(dict(step)) for step in steps]
    resize: dict[str, Any] = {}
    for step in built:
        inner = getattr(step, '_transform', None)
        for part in getattr(inner, 'transforms', ()):
            if isinstance(part, transforms.Resize):
                size: Any = part.size
                if not isinstance(size, int):
                    size = size[0] if len(size) == 1 else list(size)
                resize.update(size=size, interpolation=part.interpolation.value)
            elif isinstance(part, transforms.CenterCrop):
                resize.update(crop=list(part.size))
            elif type(part).__name__ not in ('PILToTensor', 'MaybePILToTensor'):
                raise UserError(
                    f'{cfg.filename}: {type(part).__name__} of the test pipeline has '
                    'no place in an exported file: expected a resize and a central crop'
                )
    if {'size', 'crop'} - set(resize):
        raise UserError(
            f'{cfg.filename}: the test pipeline has no resize with a central crop '
            '(ClsTransform): an exported file needs both'
        )
    if resize['interpolation'] not in ('bicubic', 'bilinear'):
        raise UserError(
            f'{cfg.filename}: interpolation={resize["interpolation"]!r} of the test '
            "pipeline: expected 'bicubic' or 'bilinear'"
        )
    mean, std = (
        getattr(model.data_preprocessor, name).flatten().tolist()
        for name in ('mean', 'std')
    )
    return dict(
        task='classification',
        channels=CHANNELS,
        mean=mean,
        std=std,
        to_rgb=True,
        resize=resize,
        windows=None,
        align_corners=False,
        threshold=None,
    )


def installed_versions() -> dict[str, str]:
    """Return the versions of the libraries that export."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def class_colours(meta: Mapping, count: int) -> list[list[int]]:
    """Return the palette of a data set, or a fixed one of as many colours."""
    palette = meta.get('palette')
    if palette is None or len(palette) < count:
        palette = np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
    return [list(map(int, colour)) for colour in palette[:count]]
