"""Check annotations while they are loaded."""

from __future__ import annotations

import os.path as osp

import numpy as np
from mmengine.registry import TRANSFORMS
from PIL import Image

from illama_seg.errors import UserError

IGNORED = 255


def wrong_size_message(path: str, shape: tuple, image: str, size: tuple) -> str:
    """Return the message for an annotation whose size is not that of its image."""
    return (
        f'{path}: the annotation is {shape} (height, width, ...), its image {image} is '
        f'{size}. Expected one label for each pixel of the image, as a single-channel '
        'PNG of the same size'
    )


def wrong_label_message(
    path: str, label: int, pixels: int, num_classes: int, shift: bool
) -> str:
    """Return the message for a label in the file that no class has.

    Args:
        path: path of the annotation.
        label: label in the file.
        pixels: number of its pixels.
        num_classes: number of classes.
        shift: ``reduce_zero_label``.
    """
    return (
        f'{path}: label {label} in {pixels} pixels; {num_classes} classes need '
        f'{"0 (ignored), 1" if shift else "0"}..{num_classes - 1 + shift} or {IGNORED} '
        "(ignored). Is it another data set's annotation, or is reduce_zero_label wrong "
        'for it?'
    )


@TRANSFORMS.register_module()
class CheckAnnotations:
    """Stop at an annotation that does not fit its image or its classes.

    Follows ``LoadAnnotations``; does nothing without an annotation. Labels out of range
    would otherwise crash a GPU kernel or count as other classes.

    Args:
        num_classes: labels are 0..num_classes - 1 and 255, after the zero label was
            reduced.

    Raises:
        UserError: names the annotation, what it holds, and what is expected.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, results: dict) -> dict:
        """Check ``gt_seg_map`` (H, W) against ``ori_shape`` and the classes."""
        labels = results.get('gt_seg_map')
        if labels is None:
            return results
        path, size = results['seg_map_path'], tuple(results['ori_shape'])
        self._check_depth(path)
        if labels.shape != size:
            raise UserError(
                wrong_size_message(path, labels.shape, results['img_path'], size)
            )
        wrong = labels[(labels >= self.num_classes) & (labels != IGNORED)]
        if wrong.size:
            shift = bool(results.get('reduce_zero_label'))
            label = int(wrong[0]) + shift
            raise UserError(
                wrong_label_message(path, label, wrong.size, self.num_classes, shift)
            )
        return results

    def _check_depth(self, path: str) -> None:
        """Refuse labels above 8 bits, which mmseg would cast: 260 to 4."""
        if not osp.isfile(path):  # a file of another storage backend
            return
        with Image.open(path) as image:
            if image.mode in ('I', 'F') or image.mode.startswith('I;'):
                highest = int(np.asarray(image).max())
                if highest > IGNORED:
                    raise UserError(
                        f'{path}: label {highest} in a {image.mode} image; expected '
                        f'8 bits a pixel, labels below {self.num_classes} or {IGNORED} '
                        '(ignored)'
                    )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes})'
