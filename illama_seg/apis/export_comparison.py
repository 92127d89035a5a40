"""Compare an exported file with its model on real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from illama_seg.apis.export_images import Example, first_window, images_of_size
from illama_seg.apis.prediction import predict
from illama_seg.deploy import ExportedModel
from illama_seg.deploy.equality import Equality, where_they_part
from illama_seg.deploy.graph import Size
from illama_seg.errors import UserError

# Sizes that a file for any size is compared at too, in heights and widths of a window.
OTHER_SIZES = ((1.5, 1.0), (1.0, 1.3), (2.0, 0.7))


@torch.no_grad()
def compare(
    model: Any, path: Path, examples: Sequence[Example], size: Size | None
) -> Equality:
    """Compare an exported file with its model, on images and at other sizes.

    Args:
        model: from :func:`load_model`.
        path: file; a sidecar lies beside it.
        examples: images, with annotations where they are known.
        size: (height, width) in pixels that the file takes, or None for any.

    Raises:
        UserError: names what differs, and where in the network.
    """
    file = ExportedModel(path)
    sidecar = file.sidecar
    segments = sidecar.task == 'segmentation'
    equality = Equality(sidecar.precision, sidecar.classes, segments)
    worst, most = examples[0][0], 0.0
    for image, truth in tqdm(examples, 'comparing', unit='image'):
        equality.add(*_both(model, file, image, truth))
        if equality.logits > most:
            worst, most = image, equality.logits
    if sidecar.size is None:
        base = first_window(sidecar, examples[0][0]).shape[2:]
        for factors in OTHER_SIZES:
            other = tuple(round(s * f) for s, f in zip(base, factors, strict=True))
            batch = images_of_size(sidecar, examples[0][0], other)
            equality.add_size(other, _logits(model, batch), file.logits(batch))
    if faults := equality.faults():
        text = ''
        if sidecar.precision == 'float32':  # others part everywhere, by rounding
            window = first_window(sidecar, worst)
            # An error of the second export must not hide the first.
            with suppress(UserError):
                text = f'\nBy stage:\n{where_they_part(model, file, window, size)}'
        raise UserError(
            f'{path.name} differs from the model, nothing was written: '
            f'{"; ".join(faults)}{text}'
        )
    return equality


def _both(
    model: Any, file: ExportedModel, image: np.ndarray, truth: Any
) -> Iterator[Any]:
    """Yield logits and labels of the model and the file, and the annotation."""
    window = first_window(file.sidecar, image)
    ours, theirs = _logits(model, window), file.logits(window)
    yield ours, theirs
    if file.sidecar.task == 'segmentation':
        yield predict(cast(nn.Module, model), image), file.segment(image)
        yield truth
        return
    yield ours.argmax(1)[None], theirs.argmax(1)[None]
    yield None if truth is None else np.array([[truth]])


def _logits(model: Any, images: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(images)
    if hasattr(model, 'decode_head'):
        return model.decode_head(model.extract_feat(batch)).numpy()
    return model(batch).numpy()
