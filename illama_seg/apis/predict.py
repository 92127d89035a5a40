"""Load a trained segmentor and run it on images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from torch import nn

from illama_seg.apis.mistakes import options_explained
from illama_seg.checkpoints import (
    fetch_checkpoint,
    find_weights,
    our_names,
    read_checkpoint,
)

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
        ValueError: if the checkpoint is not of this model or cannot be read safely, or
            there is no such device.
    """
    state = read_checkpoint(fetch_checkpoint(checkpoint), mmap=True)
    device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f'--device {device} cannot be used: {str(error).splitlines()[0]}; leave it '
            "out for a GPU where there is one, or use 'cpu'"
        ) from error
    with options_explained(config):
        model = init_model(config, None, device)
    load_weights(model, state, checkpoint)
    meta = state.get('meta', {}).get('dataset_meta')
    if not meta:
        raise ValueError(
            f'{checkpoint} has no class names (meta.dataset_meta): expected a '
            'checkpoint written by tools/train.py'
        )
    model.dataset_meta = dict(meta)
    return model


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
        ValueError: if it is not an image or is damaged; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no image {path}')
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
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


def predict(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Segment an image at its own size.

    Args:
        model: from :func:`load_segmentor` or ``mmseg.apis.init_model``.
        image: (H, W, 3) uint8, BGR.

    Returns:
        (H, W) uint8, class numbers from 0.

    Raises:
        ValueError: if the image is too thin for the decoder or the memory is too small.
    """
    try:
        labels = inference_model(model, image).pred_sem_seg.data
    except RuntimeError as error:
        raise ValueError(
            f'an image of {image.shape[0]}x{image.shape[1]} cannot be segmented: '
            f'{error}. As the test pipeline resizes it, each side needs more than one '
            'patch, and all of it must fit into the memory'
        ) from error
    return labels.squeeze(0).cpu().numpy().astype(np.uint8)
