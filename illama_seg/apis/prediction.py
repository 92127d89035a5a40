"""Run a trained segmentor on images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor, nn

from illama_seg.apis.inputs import AnyImage, as_array, is_image
from illama_seg.apis.sliding import sliding_logits
from illama_seg.errors import UserError


def predict(
    model: nn.Module,
    image: AnyImage | Iterable[AnyImage],
    full_size: bool = False,
    blend: str = 'mean',
    batch_size: int | None = None,
) -> Any:
    """Segment images at their own size, as ``mmseg.apis.inference_model`` does.

    Memory for logits is bounded for any size of the image, see
    :func:`illama_seg.apis.sliding_logits`; mmseg keeps all logits.

    Args:
        model: from :func:`load_segmentor` or ``mmseg.apis.init_model``.
        image: path, PIL image, or array as the config's loader reads it, see
            :func:`read_image`: (H, W, 3) uint8, BGR, by the default one; also grey
            (H, W) or (H, W, 1), or with alpha (H, W, 4). Or a list, tuple or generator
            of any of these.
        full_size: put the windows over the image as it is, without the resizing of the
            test pipeline.
        blend: weights of overlapping windows: 'mean', 'hann' or 'gaussian'.
        batch_size: windows at once; by default 1 on a CPU, 8 elsewhere.

    Returns:
        (H, W) uint8, class numbers from 0; for several images a list of these.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if an image cannot be read, or is too thin for the decoder, the
            memory is too small, or an argument does not fit the model.
    """
    check_windows(model, full_size, blend, batch_size)
    if batch_size is None:
        batch_size = 1 if next(model.parameters()).device.type == 'cpu' else 8
    if is_image(image) or not isinstance(image, Iterable):
        return _labels(model, cast(AnyImage, image), full_size, blend, batch_size)
    results = []
    for index, one in enumerate(image):
        try:
            results.append(_labels(model, one, full_size, blend, batch_size))
        except UserError as error:
            raise type(error)(f'image {index} of several: {error}') from error
    return results


def _labels(
    model: nn.Module, image: AnyImage, full_size: bool, blend: str, batch_size: int
) -> np.ndarray:
    segmentor = cast(Any, model)
    array = as_array(image, segmentor.cfg.test_pipeline[0])
    size = array.shape[:2]
    labels = np.empty(size, np.uint8)
    blocks = logit_blocks(model, array, batch_size, full_size=full_size, blend=blend)
    try:
        for rows, columns, logits in blocks:
            if len(logits) == 1:
                found = (logits.sigmoid() > segmentor.decode_head.threshold)[0]
            else:
                found = logits.movedim(0, -1).argmax(-1)  # as they lie in memory
            labels[rows, columns] = found.byte().cpu().numpy()
    except RuntimeError as error:
        raise UserError(
            f'an image of {size[0]}x{size[1]} cannot be segmented: '
            f'{error}. After resizing each side needs more than one patch, and the '
            'image must fit into the memory'
        ) from error
    return labels


def check_windows(
    model: nn.Module, full_size: bool, blend: str, batch_size: int | None
) -> None:
    """Refuse arguments of :func:`predict` that the model's test_cfg has no use for.

    Raises:
        UserError: names the argument and the setting.
    """
    segmentor = cast(Any, model)
    if full_size and segmentor.test_cfg.get('mode', 'whole') != 'slide':
        raise UserError(
            "needs windows, but the config's test_cfg has mode="
            f'{segmentor.test_cfg.get("mode", "whole")!r}: set '
            'model.test_cfg.mode=slide model.test_cfg.crop_size=(512,512) '
            'model.test_cfg.stride=(341,341)',
            full_size=True,
        )
    if batch_size is not None and batch_size < 1:
        raise UserError('expected at least 1', batch_size=batch_size)
    padded = segmentor.data_preprocessor.test_cfg  # the image is not cut into windows
    if padded and (full_size or blend != 'mean' or batch_size):
        raise UserError(
            'full_size, blend and batch_size need windows, but the config pads the '
            'whole image: set model.data_preprocessor.test_cfg=None'
        )


def without_annotations(steps: Sequence[Any]) -> list[Any]:
    """Return the steps of a pipeline that images without annotations can go through.

    Args:
        steps: config of the pipeline; that of a test with augmentation has lists of
            steps in it.
    """
    kept: list[Any] = []
    for step in steps:
        if not isinstance(step, Mapping):
            kept += [inner] if (inner := without_annotations(step)) else []
        elif 'transforms' in step:
            kept.append(dict(step, transforms=without_annotations(step['transforms'])))
        elif step['type'] not in ('LoadAnnotations', 'CheckAnnotations'):
            kept.append(step)
    return kept


def packed_inputs(model: Any, image: np.ndarray, full_size: bool = False) -> dict:
    """Apply the model's test pipeline to an image.

    Returns:
        ``inputs``, (channels, height, width), and ``data_samples``.

    Raises:
        UserError: if the model takes another number of channels.
    """
    steps = without_annotations(model.cfg.test_pipeline)
    if full_size:
        steps = [step for step in steps if step['type'] != 'Resize']
    takes = model.cfg.model.backbone.get('in_channels', 3)
    channels = image.shape[2] if image.ndim == 3 else 1
    if channels != takes:
        raise UserError(
            f'the image has {channels} channels, (height, width, channels)='
            f'{image.shape}, but the model takes {takes} '
            '(model.backbone.in_channels): read it as the training did, by the first '
            'step of test_pipeline'
        )
    to_float32 = steps[0].get('to_float32', False)
    steps[0] = dict(type='LoadImageFromNDArray', to_float32=to_float32)
    return Compose(steps)(dict(img=image))


def logit_blocks(
    model: nn.Module,
    image: np.ndarray,
    batch_size: int,
    *,
    full_size: bool = False,
    blend: str = 'mean',
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and logits (num_classes, rows, columns), block by block."""
    segmentor = cast(Any, model)
    if segmentor.data_preprocessor.test_cfg:  # pads the image, has no windows
        every, packed = slice(None), packed_inputs(segmentor, image)
        with torch.no_grad():
            (result,) = segmentor.test_step({k: [v] for k, v in packed.items()})
        yield every, every, result.seg_logits.data
        return
    yield from sliding_logits(
        segmentor,
        packed_inputs(segmentor, image, full_size)['inputs'],
        out_size=image.shape[:2],
        blend=blend,
        batch_size=batch_size,
    )
