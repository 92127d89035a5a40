"""Preprocessor for images of any number of bands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from mmseg.models import SegDataPreProcessor

from illama_seg.errors import UserError


@MODELS.register_module()
class BandsPreProcessor(SegDataPreProcessor):
    """Preprocessor of mmseg, for images of any number of bands.

    mmseg's takes a mean of one number or of three. ``bgr_to_rgb`` and ``rgb_to_bgr``
    turn the first three bands of an image that has three or more, and the others keep
    their places; mmseg's turn images of three bands only.

    Args:
        mean, std: one number for each band, or a single one for all, in the order of
            the bands after they are turned.
        **kwargs: see mmseg's ``SegDataPreProcessor``.

    Raises:
        UserError: if mean and std are not of the same length.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if mean is None and std is None:
            return
        if mean is None or std is None or len(mean) != len(std):
            raise UserError(
                f'BandsPreProcessor mean={mean} and std={std}: expected as many '
                'numbers in both, one for each band'
            )
        self._enable_normalize = True
        for name, numbers in (('mean', mean), ('std', std)):
            values = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """Normalise, pad and stack images (C, H, W) to (B, C, H, W).

        Raises:
            UserError: if the images have another number of bands than ``mean``.
        """
        images = data['inputs']
        bands = images[0].size(0)
        if self._enable_normalize and len(self.mean) not in (1, bands):
            raise UserError(
                f'an image has {bands} bands, but model.data_preprocessor.mean '
                f'{len(self.mean)} numbers: expected one for each band'
            )
        if self._channel_conversion and bands > 3:
            order = [2, 1, 0, *range(3, bands)]
            data = dict(data, inputs=[image[order] for image in images])
        return super().forward(data, training)
