"""Segment an image while its rows arrive."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from illama_seg.backbones import ILLaMA, Reading
from illama_seg.backbones.sequence import needs_height
from illama_seg.errors import UserError
from illama_seg.heads import ClassTokenHead, LinearHead


class StreamSegmentor:
    """Segmentor that gives the labels of a band of rows as soon as the band is there.

    A band is as high as a patch, or as the chunk of rows that sees itself (the mask
    'chunked'). A label never depends on a later row: within a band, logits are enlarged
    from the last patches above and those of the band, and below its last ones they stay
    as they are. The class tokens of ``ClassTokenHead`` are asked anew for each band,
    of all rows so far.

    Rows are taken at their own scale: the config's test pipeline is not applied.
    With ``memory_rows`` in the backbone, and no learnable positions of rows, an image
    may be endless, in constant memory.

    Args:
        model: from :func:`load_segmentor`, with an ``ILLaMA`` whose ``attn_mask`` is
            'strict' or 'chunked', and a ``LinearHead`` or ``ClassTokenHead``. It is set
            to evaluation mode.
        height: rows of pixels of the image, for learnable positions of a grid.

    Attributes:
        band_rows: rows of pixels of a band.
        rows: number of rows of pixels whose labels were given.

    Raises:
        UserError: if the model looks ahead, or needs the height.
    """

    def __init__(self, model: nn.Module, height: int | None = None) -> None:
        check_streams(model)
        self._model = cast(Any, model).eval()
        backbone = self._model.backbone
        if height is not None and (type(height) is not int or height < 1):
            raise UserError('expected a number of rows from 1 on', height=height)
        self._patch = backbone.patch_embed.proj.stride[0]
        chunk = backbone.chunk_rows if backbone.attn_mask == 'chunked' else 1
        self.band_rows = chunk * self._patch
        self._height = height
        self._total = None if height is None else -(-height // self._patch)
        if self._total is None and needs_height(backbone):
            raise UserError(
                'the positions are scaled to the whole image: expected its height, or '
                "a model with model.backbone.pos_axes='columns' and rotary_grid="
                "'raster' or 'neighbour'"
            )
        self.rows = 0
        self._reading: Reading | None = None
        self._above: Tensor | None = None
        self._waiting: list[np.ndarray] = []
        self._width: int | None = None
        self._is_finished = False
        self._device = next(model.parameters()).device

    @property
    def kept_rows(self) -> int:
        """Number of rows of patches whose keys and values are kept."""
        return 0 if self._reading is None else self._reading.kept_rows

    @property
    def kept_bytes(self) -> int:
        """Memory of the keys and values that are kept."""
        keys = () if self._reading is None else self._reading.keys
        return sum(part.nbytes for pair in keys for part in pair)

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Take the next rows of the image.

        Args:
            rows: (n, W, 3) uint8, BGR as the config's loader reads it; any number.

        Returns:
            (m, W) uint8, class numbers of the bands that they complete: m is 0 or a
            multiple of ``band_rows``.

        Raises:
            UserError: if they do not continue the image.
        """
        self._check(rows)
        self._waiting.append(rows)
        height = sum(map(len, self._waiting))
        ready = height // self.band_rows * self.band_rows
        pixels = np.concatenate(self._waiting)
        self._waiting = [pixels[ready:]] if ready < height else []
        parts = [
            self._labels(pixels[top : top + self.band_rows])
            for top in range(0, ready, self.band_rows)
        ]
        empty = np.empty((0, rows.shape[1]), np.uint8)
        return np.concatenate([empty, *parts])

    def finish(self) -> np.ndarray:
        """End the image: return the labels (m, W) of what makes no whole band."""
        pixels, self._waiting = self._waiting, []
        self._is_finished = True
        if not pixels:
            return np.empty((0, self._width or 0), np.uint8)
        return self._labels(np.concatenate(pixels))

    def _check(self, rows: np.ndarray) -> None:
        channels = self._model.backbone.patch_embed.proj.in_channels
        shape, dtype = np.shape(rows), getattr(rows, 'dtype', type(rows).__name__)
        fits = len(shape) == 3 and shape[2] == channels and shape[1] > 0
        if not fits or dtype != np.uint8:
            raise UserError(
                f'rows of shape {shape} and dtype {dtype}: expected an array (n, W, '
                f'{channels}) of uint8'
            )
        if self._width not in (None, shape[1]):
            raise UserError(
                f'rows of {shape[1]} pixels: expected {self._width}, as those before'
            )
        given = self.rows + sum(map(len, self._waiting))
        if self._is_finished or given + len(rows) > (self._height or np.inf):
            raise UserError(
                f'{len(rows)} rows more than the {given} so far: the image has ended '
                f'(height={self._height}). Expected another StreamSegmentor'
            )
        self._width = shape[1]

    @torch.inference_mode()
    def _labels(self, pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        model = self._model
        image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        prepared = model.data_preprocessor(dict(inputs=[image]), False)['inputs']
        backbone = model.backbone
        self._reading = backbone.read(prepared, self._reading, self._total)
        inputs: list[Tensor] = list(self._reading.maps)
        if backbone.query_offsets is not None:
            inputs.append(backbone.ask(self._reading, backbone.query_offsets))
        logits = model.decode_head(inputs)
        above, self._above = self._above, logits[:, :, -1:]
        skip = 0 if above is None else 1
        if above is not None:
            logits = torch.cat([above, logits], dim=2)
        step = self._patch * self._reading.maps[-1].size(2) // (logits.size(2) - skip)
        size = logits.size(2) * step, logits.size(3) * step
        logits = F.interpolate(logits, size, mode='bilinear')
        logits = logits[:, :, skip * step :][:, :, :height, :width]
        self.rows += height
        if logits.size(1) == 1:
            found = logits.sigmoid()[0, 0] > model.decode_head.threshold
        else:
            found = logits[0].argmax(0)
        return found.byte().cpu().numpy()


def check_streams(model: Any) -> None:
    """Refuse a model that looks ahead, or is no segmentor of this package.

    Raises:
        UserError: names the setting.
    """
    backbone = getattr(model, 'backbone', None)
    head = getattr(model, 'decode_head', None)
    if not isinstance(backbone, ILLaMA) or backbone.attn_mask not in (
        'strict',
        'chunked',
    ):
        found = getattr(backbone, 'attn_mask', type(backbone).__name__)
        raise UserError(
            f'model.backbone looks ahead ({found}): expected an ILLaMA with attn_mask='
            "'strict' or 'chunked'"
        )
    if backbone.attn_mask == 'chunked' and backbone.chunk_rows is None:
        raise UserError(
            'model.backbone.chunk_rows=None lets patches see the whole image: expected '
            'a number of rows'
        )
    if not isinstance(head, LinearHead | ClassTokenHead) or model.with_neck:
        raise UserError(
            f'{type(head).__name__} reads the rows below: expected model.neck=None and '
            'a LinearHead or ClassTokenHead'
        )
    if model.data_preprocessor.test_cfg:
        raise UserError(
            'model.data_preprocessor.test_cfg pads the whole image: expected None'
        )
    if head.align_corners:
        raise UserError('model.decode_head.align_corners=True: expected False')
