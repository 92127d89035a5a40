"""Sliding-window logits for images of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from illama_seg.deploy.description import only_enlarges
from illama_seg.errors import UserError
from illama_seg.windows import BLENDS, Axis, Places, average

# Rows and columns of the output, and their logits (num_classes, rows, columns).
Block = tuple[slice, slice, Tensor]


def sliding_logits(
    model: Any,
    inputs: Tensor,
    *,
    out_size: tuple[int, int] | None = None,
    blend: str = 'mean',
    batch_size: int = 1,
    band_bytes: int = 2**30,
) -> Iterator[Block]:
    """Compute the logits of an image in blocks that cover the output once.

    Memory holds the image, ``band_bytes``, and the model's own for a batch of windows,
    see :func:`illama_seg.windows.average`.

    Args:
        model: mmseg's ``EncoderDecoder``; mode 'whole' of its ``test_cfg`` is one
            window.
        inputs: (C, H, W) from the test pipeline, not normalised.
        out_size: (height, width) of the output; by default that of ``inputs``.
        blend: weights where windows overlap: 'mean', as in mmseg, or lower towards a
            window's border: 'hann', 'gaussian'.
        batch_size: windows per forward pass.
        band_bytes: memory for the logits of windows that overlap, and for the rows that
            are computed from them; at least one window's.

    Yields:
        Rows and columns of the output, and their logits (num_classes, rows, columns)
        in float32 on the model's device.

    Raises:
        UserError: if the windows leave gaps, or an argument is out of range.
    """
    if blend not in BLENDS:
        raise UserError(f'expected one of {", ".join(BLENDS)}', blend=blend)
    if batch_size < 1:
        raise UserError('expected at least 1 window', batch_size=batch_size)
    size = tuple(inputs.shape[-2:])
    crops = strides = size
    if model.test_cfg.get('mode', 'whole') == 'slide':
        crops, strides = model.test_cfg.crop_size, model.test_cfg.stride
    rows, columns = (
        Axis(*numbers, blend=blend, align_corners=model.align_corners)
        for numbers in zip(size, out_size or size, crops, strides, strict=True)
    )
    windows = Windows(model, inputs, (rows.length, columns.length))
    few = len(rows.starts) * len(columns.starts) < 32
    with tqdm(unit='window', leave=False, disable=few) as bar:

        def show(count: int, total: int) -> None:
            bar.total = total
            bar.update(count)

        for where_rows, where_columns, values in average(
            windows,
            rows,
            columns,
            batch_size=batch_size,
            band_bytes=band_bytes,
            progress=show,
        ):
            yield where_rows, where_columns, values.permute(2, 0, 1)


class Windows:
    """Logits of an image's windows, at the resolution of the decoder.

    Args:
        model: see :func:`sliding_logits`.
        inputs: (C, H, W).
        size: (height, width) of a window.
    """

    def __init__(self, model: Any, inputs: Tensor, size: tuple[int, int]) -> None:
        self.model, self.inputs, self.size = model, inputs, size
        self.channels: int = model.out_channels
        self.device = next(model.parameters()).device
        # Logits of others are taken as they are, at the size of the window.
        self._enlarges = only_enlarges(model)

    @torch.no_grad()
    def compute(self, y: int, corners: list[int]) -> list[Tensor]:
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

    def enlarged(self, values: Tensor, begin: int, end: int) -> Tensor:
        """Enlarge logits to rows ``begin`` to ``end`` of their window."""
        height, width = self.size
        if values.shape[:2] == self.size:
            return values[begin:end]
        corners = self.model.align_corners
        rows = Places.of(len(values), height, corners).part(begin, end)
        part = self.interpolated(values, rows, 0)
        image = part[None].permute(0, 3, 1, 2)  # channels last, also in its strides
        size = end - begin, width
        image = F.interpolate(image, size, mode='bilinear', align_corners=corners)
        return image[0].permute(1, 2, 0)

    def interpolated(self, values: Tensor, places: Places, axis: int) -> Tensor:
        """Interpolate an array (rows, columns, channels) along an axis."""
        first, second = (
            values.index_select(axis, self.array(inputs))
            for inputs in (places.first, places.second)
        )
        share = self.array(places.share)[:, None]
        return torch.lerp(first, second, share if axis == 1 else share[:, None])

    def array(self, values: np.ndarray) -> Tensor:
        """Return a tensor on the model's device."""
        return torch.from_numpy(values).to(self.device)
