"""Sliding-window logits for images of any size, in bounded memory.

Windows have the places of mmseg's ``slide_inference``. They are computed row by row; a
row of pixels is yielded as soon as no later window touches it, so logits are kept for
one row of windows only. A wide image is cut into strips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.signal import windows
from tqdm import tqdm

from illama_seg.errors import UserError

# Weights of a window's pixels along one side, where windows overlap.
BLENDS: dict[str, Callable[[int], Tensor]] = {
    'mean': torch.ones,
    'hann': lambda length: windows.hann(length + 2)[1:-1],
    'gaussian': lambda length: windows.gaussian(length, std=length / 8),
}

# Rows and columns of the output, and their logits (num_classes, rows, columns).
Block = tuple[slice, slice, Tensor]


class Axis:
    """Height or width: places of its windows, and interpolation to the output.

    Args:
        size: pixels of the model's input.
        out: pixels of the output; logits are interpolated linearly.
        crop: pixels of a window; a smaller image is one window.
        stride: pixels from one window to the next; the last window ends with the image.
        blend: a key of ``BLENDS``.
        align_corners: the decoder's setting, for the interpolation.

    Raises:
        UserError: if windows would leave gaps.
    """

    def __init__(
        self,
        size: int,
        out: int,
        crop: int,
        stride: int,
        *,
        blend: str = 'mean',
        align_corners: bool = False,
    ) -> None:
        if not 1 <= stride <= crop:
            raise UserError(
                f'model.test_cfg.stride={stride}, crop_size={crop}: expected '
                '1 <= stride <= crop_size: else pixels between windows are skipped'
            )
        self.size, self.out, self.length = size, out, min(crop, size)
        count = -(-max(size - crop, 0) // stride) + 1
        self.starts = [min(k * stride, size - self.length) for k in range(count)]
        self.weight = BLENDS[blend](self.length)
        self.total = torch.zeros(size)
        for start in self.starts:
            self.total[start : start + self.length] += self.weight
        places = torch.arange(out, dtype=torch.float32)
        if align_corners and out > 1:
            places = places * ((size - 1) / (out - 1))
        elif not align_corners:
            places = ((places + 0.5) * (size / out) - 0.5).clamp(min=0)
        self.first = places.long().clamp(max=size - 1)
        self.second = (self.first + (size != out)).clamp(max=size - 1)
        self.share = places - self.first

    def finished(self, end: int) -> int:
        """Count the outputs that need no pixel from ``end`` on."""
        return int(torch.searchsorted(self.second, end))

    def strips(self, longest: int) -> Iterator[tuple[int, int]]:
        """Cut the outputs into strips of at most ``longest`` pixels, up to a window.

        ``longest`` must be at least one pixel more than a window.
        """
        begin = 0
        while begin < self.out:
            farthest = int(self.first[begin]) + longest
            ends = [start + self.length for start in self.starts]
            end = self.finished(max(e for e in ends if e <= farthest))
            yield begin, end
            begin = end

    def touching(self, begin: int, end: int) -> list[int]:
        """List the windows that outputs ``begin`` to ``end`` depend on."""
        low, high = int(self.first[begin]), int(self.second[end - 1])
        return [start for start in self.starts if low - self.length < start <= high]

    def resample(
        self, values: Tensor, begin: int, end: int, offset: int, dim: int
    ) -> Tensor:
        """Interpolate outputs ``begin`` to ``end``; ``values`` start at ``offset``."""
        if self.size == self.out:
            return values
        device = values.device
        first, second = (
            values.index_select(dim, (pixels[begin:end] - offset).to(device))
            for pixels in (self.first, self.second)
        )
        share = self.share[begin:end].to(device)
        return torch.lerp(first, second, share[:, None] if dim == 1 else share)


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

    Memory holds the image, ``band_bytes``, and the model's own for a batch of windows.
    An image too wide for ``band_bytes`` is cut into strips; windows on a cut are
    computed twice.

    Args:
        model: mmseg's ``EncoderDecoder``; mode 'whole' of its ``test_cfg`` is one
            window.
        inputs: (C, H, W) from the test pipeline, not normalised.
        out_size: (height, width) of the output; by default that of ``inputs``.
        blend: weights where windows overlap: 'mean', as in mmseg, or lower towards a
            window's border: 'hann', 'gaussian'.
        batch_size: windows per forward pass.
        band_bytes: memory for the logits of a row of windows; at least one window.

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
    longest = band_bytes // (4 * model.out_channels * (rows.length + 1))
    strips = list(columns.strips(max(longest, columns.length + 1)))
    count = len(rows.starts) * sum(len(columns.touching(*strip)) for strip in strips)
    with tqdm(total=count, unit='window', leave=False, disable=count < 32) as bar:
        for strip in strips:
            # No variable: it would keep this strip's band beside the next one's.
            yield from _Strip(model, inputs, rows, columns, strip).blocks(
                batch_size, bar
            )


class _Strip:
    """Pass down a strip of the output; ``band`` holds its unfinished logits."""

    def __init__(
        self,
        model: Any,
        inputs: Tensor,
        rows: Axis,
        columns: Axis,
        strip: tuple[int, int],
    ) -> None:
        self.model, self.inputs = model, inputs
        self.rows, self.columns, self.strip = rows, columns, strip
        device = next(model.parameters()).device
        self.weight = (rows.weight[:, None] * columns.weight).to(device)
        self.left = int(columns.first[strip[0]])
        self.right = int(columns.second[strip[1] - 1]) + 1
        # Windows form a grid: the sum of weights is the product of the two axes' sums.
        self.totals = (
            rows.total.to(device)[:, None],
            columns.total[self.left : self.right].to(device),
        )
        # One row more than a window, to interpolate between the last two rows.
        self.band = torch.zeros(
            model.out_channels, rows.length + 1, self.right - self.left, device=device
        )
        self.top = self.bottom = 0  # the image's rows in the band

    def blocks(self, batch_size: int, bar: tqdm) -> Iterator[Block]:
        """Yield rows as soon as no window below touches them."""
        rows, done = self.rows, 0
        starts = self.columns.touching(*self.strip)
        for y, below in zip(rows.starts, [*rows.starts[1:], rows.size], strict=True):
            self._move(min(y, int(rows.first[done])), y + rows.length)
            for number in range(0, len(starts), batch_size):
                corners = starts[number : number + batch_size]
                for x, logits in zip(corners, self._logits(y, corners), strict=True):
                    self._add(y, x, logits)
                bar.update(len(corners))
            ready = rows.finished(below)
            for begin in range(done, ready, 16):
                end = min(begin + 16, ready)
                yield slice(begin, end), slice(*self.strip), self._finish(begin, end)
            done = ready
            if done == rows.out:
                return

    def _move(self, top: int, bottom: int) -> None:
        """Drop the rows above ``top`` and make room for rows down to ``bottom``."""
        height, shift = self.bottom - top, top - self.top
        if shift:
            for plane in self.band:
                plane[:height] = plane[shift : shift + height].clone()
                plane[height:] = 0
        self.top, self.bottom = top, bottom

    @torch.no_grad()
    def _logits(self, y: int, corners: list[int]) -> Tensor:
        """Weighted logits, (len(corners), num_classes, height, width) in float32."""
        height, width = self.rows.length, self.columns.length
        crops = [self.inputs[:, y : y + height, x : x + width] for x in corners]
        batch = self.model.data_preprocessor(dict(inputs=crops), False)['inputs']
        metas = [dict(img_shape=batch.shape[2:])] * len(crops)
        return self.model.encode_decode(batch, metas).float().mul_(self.weight)

    def _add(self, y: int, x: int, logits: Tensor) -> None:
        begin, end = max(x, self.left), min(x + self.columns.length, self.right)
        place = self.band[:, y - self.top :, begin - self.left : end - self.left]
        place[:, : self.rows.length] += logits[:, :, begin - x : end - x]

    def _finish(self, begin: int, end: int) -> Tensor:
        """Logits of outputs ``begin`` to ``end``, (num_classes, rows, columns)."""
        low, high = int(self.rows.first[begin]), int(self.rows.second[end - 1]) + 1
        sums = self.band[:, low - self.top : high - self.top]
        mean = sums / (self.totals[0][low:high] * self.totals[1])
        mean = self.rows.resample(mean, begin, end, low, 1)
        return self.columns.resample(mean, *self.strip, self.left, 2)
