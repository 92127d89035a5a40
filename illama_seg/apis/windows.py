"""Logits of an image's windows, kept as small as the decoder makes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmseg.models import EncoderDecoder
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor


class Places(NamedTuple):
    """Outputs of an interpolation along one axis: two neighbours of each."""

    first: Tensor
    second: Tensor
    share: Tensor  # of the second neighbour

    @classmethod
    def of(cls, size: int, out: int, align_corners: bool) -> Places:
        """Place ``out`` outputs between ``size`` inputs, as ``F.interpolate`` does."""
        places = torch.arange(out, dtype=torch.float32)
        if align_corners and out > 1:
            places = places * ((size - 1) / (out - 1))
        elif not align_corners:
            places = ((places + 0.5) * (size / out) - 0.5).clamp(min=0)
        first = places.long().clamp(max=size - 1)
        second = (first + (size != out)).clamp(max=size - 1)
        return cls(first, second, places - first)

    def interpolate(
        self, values: Tensor, begin: int, end: int, offset: int, dim: int
    ) -> Tensor:
        """Compute outputs ``begin`` to ``end`` along an axis of (rows, columns, C).

        ``values`` start at input ``offset``.
        """
        device = values.device
        first, second = (
            values.index_select(dim, (inputs[begin:end] - offset).to(device))
            for inputs in (self.first, self.second)
        )
        share = self.share[begin:end, None].to(device)
        return torch.lerp(first, second, share if dim == 1 else share[:, None])


class Windows:
    """Logits of an image's windows, at the resolution of the decoder.

    Args:
        model: see :func:`sliding_logits`.
        inputs: (C, H, W).
        size: (height, width) of a window.
    """

    def __init__(self, model: Any, inputs: Tensor, size: tuple[int, int]) -> None:
        self.model, self.inputs, self.size = model, inputs, size
        self.num_classes: int = model.out_channels
        self.device = next(model.parameters()).device
        head = getattr(model, 'decode_head', None)
        # Others do more than to enlarge their logits, which are then taken as they are.
        self._enlarges = type(model) is EncoderDecoder and all(
            getattr(type(head), name, None) is getattr(BaseDecodeHead, name)
            for name in ('predict', 'predict_by_feat')
        )

    @torch.no_grad()
    def logits(self, y: int, corners: list[int]) -> list[Tensor]:
        """Compute windows of one row, (height, width, num_classes) float32 each."""
        height, width = self.size
        crops = [self.inputs[:, y : y + height, x : x + width] for x in corners]
        batch = self.model.data_preprocessor(dict(inputs=crops), False)['inputs']
        if self._enlarges:
            logits = self.model.decode_head(self.model.extract_feat(batch))
        else:
            metas = [dict(img_shape=batch.shape[2:])] * len(crops)
            logits = self.model.encode_decode(batch, metas)
        return list(logits.float().permute(0, 2, 3, 1).contiguous())

    def enlarged(self, logits: Tensor, begin: int, end: int) -> Tensor:
        """Enlarge logits to rows ``begin`` to ``end`` of their window."""
        height, width = self.size
        if logits.shape[:2] == self.size:
            return logits[begin:end]
        corners = self.model.align_corners
        rows = Places.of(len(logits), height, corners)
        part = rows.interpolate(logits, begin, end, 0, 0)
        image = part[None].permute(0, 3, 1, 2)  # channels last, also in its strides
        size = end - begin, width
        image = F.interpolate(image, size, mode='bilinear', align_corners=corners)
        return image[0].permute(1, 2, 0)
