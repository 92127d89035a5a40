"""Sizes that do not fit: images of a batch, annotations and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unequal_sizes(batch: Any, split: str = 'val') -> str:
    """Say that the images of a batch differ in size, or nothing."""
    images = batch.get('inputs', ()) if isinstance(batch, Mapping) else ()
    shapes = [getattr(image, 'shape', ())[-2:] for image in images]
    sizes = {f'{shape[0]}x{shape[1]}' for shape in shapes if len(shape) == 2}
    if len(sizes) < 2:
        return ''
    return (
        f'{split}_dataloader.batch_size={len(images)}, but the images have different '
        f'sizes, as {" and ".join(sorted(sizes))}: set {split}_dataloader.batch_size=1'
    )


def misfit_labels(samples: Any, split: str = 'val') -> str:
    """Say that an annotation has not the size of its prediction, or nothing."""
    for sample in samples if isinstance(samples, list | tuple) else ():
        labels, scores = (
            getattr(sample, name, None) for name in ('gt_sem_seg', 'pred_sem_seg')
        )
        if labels is None or scores is None or labels.shape == scores.shape:
            continue
        found, expected = (
            f'{part.shape[0]}x{part.shape[1]}' for part in (labels, scores)
        )
        return (
            f'{sample.get("seg_map_path")} is {found} behind '
            f'{split}_dataloader.dataset.pipeline, but the prediction is {expected}, '
            'as the image file: put LoadAnnotations behind Resize, and leave out crops'
        )
    return ''
