"""Image loaders of mmcv and mmseg that refuse an image of an absurd size.

They replace the originals under the same names, which configs, ``inference_model`` and
``MMSegInferencer`` use.
"""

from __future__ import annotations

from mmcv import transforms as mmcv_transforms
from mmengine.registry import TRANSFORMS
from mmseg.datasets import transforms as mmseg_transforms
from mmseg.registry import TRANSFORMS as SEG_TRANSFORMS
from PIL import Image

from illama_seg.datasets.images import MAX_PIXELS, bombs_refused, check_image

# Pillow warns of more than this, and refuses an image that has more than twice as many.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv_transforms.LoadImageFromFile):
    """Loader with the arguments of mmcv's.

    Raises:
        UserError: if the header of the image declares too many pixels, or no size;
            names the file.
    """

    def transform(self, results: dict) -> dict | None:
        """Read ``img_path``, set ``img``, (H, W, 3)."""
        check_image(results['img_path'], is_known=True)
        with bombs_refused(results['img_path']):
            return super().transform(results)


@SEG_TRANSFORMS.register_module(force=True)
class LoadAnnotations(mmseg_transforms.LoadAnnotations):
    """Loader with the arguments of mmseg's.

    Raises:
        UserError: as ``LoadImageFromFile``, for the annotation.
    """

    def transform(self, results: dict) -> dict:
        """Read ``seg_map_path``, set ``gt_seg_map``, (H, W)."""
        check_image(results['seg_map_path'], is_known=True)
        with bombs_refused(results['seg_map_path']):
            return super().transform(results)
