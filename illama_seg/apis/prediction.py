"""Load a trained segmentor and run it on images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmseg.apis import inference_model, init_model
from torch import Tensor, nn

from illama_seg.apis.mistakes import check_segmentation, options_explained
from illama_seg.apis.sliding import sliding_logits
from illama_seg.checkpoints import (
    fetch_checkpoint,
    find_weights,
    our_names,
    read_checkpoint,
)
from illama_seg.datasets.images import check_image

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def load_segmentor(
    config: str | Path | Config, checkpoint: str | Path, device: str | None = None
) -> nn.Module:
    """Build a segmentor and load its weights, all of them, without running any code.

    Args:
        config: config file or config.
        checkpoint: file or URL of a checkpoint of this segmentor.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.

    Returns:
        The model in eval mode, as ``mmseg.apis.init_model`` returns it, with
        ``dataset_meta`` (classes and palette).

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the config is not of a segmentor, the checkpoint is not of this
            model or cannot be read safely, or there is no such device.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    check_segmentation(cfg)
    state = read_checkpoint(fetch_checkpoint(checkpoint), mmap=True)
    device = usable_device(device)
    with options_explained(cfg):
        model = init_model(cfg, None, device)
    load_weights(model, state, checkpoint)
    meta = state.get('meta', {}).get('dataset_meta')
    if not meta:
        raise ValueError(
            f'{checkpoint} has no class names (meta.dataset_meta): expected a '
            'checkpoint written by tools/train.py'
        )
    model.dataset_meta = dict(meta)
    return model


def usable_device(device: str | None) -> str:
    """The device given, or by default a GPU where there is one.

    Raises:
        ValueError: if there is no such device.
    """
    device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f'--device {device} cannot be used: {str(error).splitlines()[0]}; leave it '
            "out for a GPU where there is one, or use 'cpu'"
        ) from error
    return device


def dataset_meta(model: nn.Module) -> dict[str, Any]:
    """Classes, palette and the like of the data set that a model was trained on."""
    return cast(dict[str, Any], model.dataset_meta)


def annotation_ids(meta: dict) -> np.ndarray:
    """Id that each class has in the data set's annotations, (num_classes,) uint8.

    ADE20K's annotations count from 1; a data set of some of its classes keeps its ids.
    """
    ids = np.arange(len(meta['classes']), dtype=np.uint8)
    for old, new in (meta.get('label_map') or {}).items():
        if new != 255:
            ids[new] = old
    return ids + bool(meta.get('reduce_zero_label'))


def load_weights(model: nn.Module, state: dict, source: str | Path) -> None:
    """Load a checkpoint and refuse one that does not fit exactly.

    A classifier takes the authors' released files as they are.

    Raises:
        ValueError: names the file and the first keys that do not fit.
    """
    weights, _ = find_weights(state, source)
    if any(key.startswith('blocks.') for key in weights):
        weights = our_names(weights)
    own = model.state_dict()
    faults = [
        f'{key}: the file has {tuple(weights[key].shape)}, the model '
        f'{tuple(own[key].shape)}'
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    faults += [f'{key}: not in the file' for key in own if key not in weights]
    faults += [f'{key}: not in the model' for key in weights if key not in own]
    if faults:
        shown = '\n  '.join(faults[:5])
        raise ValueError(
            f'{source} is not a checkpoint of this model, {len(faults)} of '
            f'{len(own)} keys do not fit:\n  {shown}\nUse the config it was trained '
            'with; mmengine keeps a copy of it in the work dir'
        )
    model.load_state_dict(weights)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image: (H, W, 3) uint8, BGR; grey, alpha and 16 bits are converted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, is damaged, or declares too many pixels; names
            the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no image {path}')
    check_image(path, is_known=True)
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        if 'MAX_IMAGE' in str(error):
            raise ValueError(
                f'{path} has more pixels or a longer side than OpenCV decodes: set '
                'OPENCV_IO_MAX_IMAGE_PIXELS (2^29 if unset), _WIDTH and _HEIGHT '
                'in the environment'
            ) from error
        image = None
    if image is None:
        raise ValueError(
            f'{path} ({data.size} bytes) is damaged or no image; formats read: '
            f'{", ".join(IMAGE_SUFFIXES)}'
        )
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W) or BGR (H, W, 3) uint8, in the format its suffix says.

    Raises:
        ValueError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    except OSError as error:
        raise ValueError(
            f'{path} cannot be written ({error.strerror}); name another folder with '
            '--out'
        ) from error


def find_images(
    inputs: Iterable[str | Path], skip: str | Path | None = None
) -> list[tuple[Path, Path]]:
    """List images of files and folders.

    Args:
        inputs: files and folders, searched with their subfolders.
        skip: folder of results, of which ``overlay`` and ``labels`` are not searched.

    Returns:
        (path, name) of each: the name is the path below the folder that was given.

    Raises:
        FileNotFoundError: if an input does not exist.
        ValueError: if a folder holds no image, or two results had the same name.
    """
    found = []
    skipped = (
        {Path(skip, name).resolve() for name in ('overlay', 'labels')}
        if skip
        else set()
    )
    for entry in map(Path, inputs):
        if entry.is_dir():
            files = sorted(
                file
                for file in entry.rglob('*')
                if file.suffix.lower() in IMAGE_SUFFIXES
                and skipped.isdisjoint(file.resolve().parents)
            )
            if not files:
                raise ValueError(
                    f'no image in folder {entry}: expected files ending in '
                    f'{", ".join(IMAGE_SUFFIXES)}'
                )
            found += [(file, file.relative_to(entry)) for file in files]
        elif entry.is_file():
            found.append((entry, Path(entry.name)))
        else:
            raise FileNotFoundError(f'no image or folder {entry}')
    names: dict[Path, Path] = {}
    for path, name in found:
        other = names.setdefault(name.with_suffix(''), path)
        if other != path:
            raise ValueError(
                f'{other} and {path} would both be written as {name.stem}: segment '
                'them into different folders'
            )
    return found


def predict(
    model: nn.Module,
    image: np.ndarray,
    full_size: bool = False,
    blend: str = 'mean',
    batch_size: int | None = None,
) -> np.ndarray:
    """Segment an image at its own size, as ``mmseg.apis.inference_model`` does.

    The memory for logits is bounded whatever the image's size, see
    :func:`illama_seg.apis.sliding_logits`; mmseg keeps all of them.

    Args:
        model: from :func:`load_segmentor` or ``mmseg.apis.init_model``.
        image: (H, W, 3) uint8, BGR.
        full_size: let the windows go over the image as it is, where the test pipeline
            would resize it.
        blend: how overlapping windows are averaged: 'mean', 'hann' or 'gaussian'.
        batch_size: windows at once; by default 1 on a CPU, 8 elsewhere.

    Returns:
        (H, W) uint8, class numbers from 0.

    Raises:
        ValueError: if the image is too thin for the decoder, the memory is too small,
            or an argument does not fit the model.
    """
    segmentor = cast(Any, model)
    if full_size and segmentor.test_cfg.get('mode', 'whole') != 'slide':
        raise ValueError(
            "--full-size goes with windows, but the config's test_cfg has mode="
            f'{segmentor.test_cfg.get("mode", "whole")!r}: --cfg-options '
            'model.test_cfg.mode=slide model.test_cfg.crop_size=(512,512) '
            'model.test_cfg.stride=(341,341)'
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(f'--batch-size {batch_size}: expected at least 1')
    padded = bool(segmentor.data_preprocessor.test_cfg)  # the whole image, not windows
    if padded and (full_size or blend != 'mean' or batch_size):
        raise ValueError(
            '--full-size, --blend and --batch-size are of windows, but the config pads '
            'the whole image (model.data_preprocessor.test_cfg): --cfg-options '
            'model.data_preprocessor.test_cfg=None'
        )
    if batch_size is None:
        batch_size = 1 if next(model.parameters()).device.type == 'cpu' else 8
    size = image.shape[:2]
    labels = np.empty(size, np.uint8)
    try:
        if padded:
            found = inference_model(model, image).pred_sem_seg.data[0]
            return found.byte().cpu().numpy()
        inputs = packed_inputs(segmentor, image, full_size)
        for rows, columns, logits in sliding_logits(
            segmentor, inputs, size, blend, batch_size
        ):
            if len(logits) == 1:
                found = (logits.sigmoid() > segmentor.decode_head.threshold)[0]
            else:
                found = logits.argmax(0)
            labels[rows, columns] = found.byte().cpu().numpy()
    except RuntimeError as error:
        raise ValueError(
            f'an image of {size[0]}x{size[1]} cannot be segmented: '
            f'{error}. As the test pipeline resizes it, each side needs more than one '
            'patch, and all of it must fit into the memory'
        ) from error
    return labels


def packed_inputs(model: Any, image: np.ndarray, full_size: bool = False) -> Tensor:
    """(3, height, width) uint8, as the model's test pipeline makes it of an image."""
    left_out = ['LoadAnnotations', 'CheckAnnotations', *['Resize'] * full_size]
    steps = [step for step in model.cfg.test_pipeline if step['type'] not in left_out]
    steps[0] = dict(steps[0], type='LoadImageFromNDArray')
    return Compose(steps)(dict(img=image))['inputs']
