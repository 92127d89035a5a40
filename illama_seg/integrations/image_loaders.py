"""Image loaders of mmcv and mmseg that refuse what they would read wrongly.

They replace the originals under the same names, which configs, ``inference_model`` and
``MMSegInferencer`` use.
"""

from __future__ import annotations

import mmengine.fileio as fileio
import numpy as np
from mmcv import transforms as mmcv_transforms
from mmengine.registry import TRANSFORMS
from mmseg.datasets import transforms as mmseg_transforms
from mmseg.registry import TRANSFORMS as SEG_TRANSFORMS
from PIL import Image

from illama_seg.datasets.decoding import check_decoder, check_finite, decode_image
from illama_seg.datasets.images import MAX_PIXELS, bombs_refused, check_image
from illama_seg.errors import UserError

# Pillow warns of more than this, and refuses an image that has more than twice as many.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2


@TRANSFORMS.register_module(force=True)
class LoadImageFromFile(mmcv_transforms.LoadImageFromFile):
    """Loader with the arguments of mmcv's, for any number of bands.

    By ``imdecode_backend='tifffile'`` the bands of a TIFF may lie side by side, in
    planes or in pages; mmcv's own gives (bands, H, W) for the last two.

    Raises:
        UserError: names a file that is damaged, too large, holds values that are not
            finite, or has bands that the decoder would leave out.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_decoder(self.color_type, self.imdecode_backend)

    def transform(self, results: dict) -> dict | None:
        """Read ``img_path``, set ``img``, (H, W, 3), (H, W) or (H, W, bands)."""
        path = results['img_path']
        try:
            image = decode_image(
                path, self._content(path), self.color_type, self.imdecode_backend
            )
            check_finite(path, image)
        except (UserError, OSError):
            if self.ignore_empty:
                return None
            raise
        results['img'] = image.astype(np.float32) if self.to_float32 else image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _content(self, path: str) -> bytes:
        if self.file_client_args is None:
            return fileio.get(path, backend_args=self.backend_args)
        client = fileio.FileClient.infer_client(self.file_client_args, path)
        return client.get(path)


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
