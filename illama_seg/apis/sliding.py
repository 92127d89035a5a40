"""Sliding-window logits for images of any size, in bounded memory.

Windows have the places of mmseg's ``slide_inference``. They are computed row by row,
and their logits are kept as the decoder makes them: UPerNet's at a quarter of the size.
A few rows of pixels at a time are enlarged, averaged and yielded, as soon as no later
window touches them. A wide image is cut into strips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.signal.windows import gaussian, hann
from tqdm import tqdm

from illama_seg.apis.windows import Places, Windows
from illama_seg.errors import UserError

# Weights of a window's pixels along one side, where windows overlap.
BLENDS: dict[str, Callable[[int], Tensor]] = {
    'mean': torch.ones,
    'hann': lambda length: hann(length + 2)[1:-1],
    'gaussian': lambda length: gaussian(length, std=length / 8),
}

ROWS = 16  # of the output, enlarged at a time: they stay in the processor's cache
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
        self.places = Places.of(size, out, align_corners)

    def finished(self, end: int) -> int:
        """Count the outputs that need no pixel from ``end`` on."""
        return int(torch.searchsorted(self.places.second, end))

    def strips(self, longest: int) -> Iterator[tuple[int, int]]:
        """Cut the outputs into strips of at most ``longest`` pixels, up to a window.

        ``longest`` must be at least one pixel more than a window.
        """
        begin = 0
        while begin < self.out:
            farthest = int(self.places.first[begin]) + longest
            ends = [start + self.length for start in self.starts]
            end = self.finished(max(e for e in ends if e <= farthest))
            yield begin, end
            begin = end

    def touching(self, begin: int, end: int) -> list[int]:
        """List the windows that outputs ``begin`` to ``end`` depend on."""
        low, high = int(self.places.first[begin]), int(self.places.second[end - 1])
        return [start for start in self.starts if low - self.length < start <= high]

    def resample(
        self, values: Tensor, begin: int, end: int, offset: int, dim: int
    ) -> Tensor:
        """Interpolate outputs ``begin`` to ``end``; ``values`` start at ``offset``."""
        if self.size == self.out:
            return values
        return self.places.interpolate(values, begin, end, offset, dim)


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
    strips = list(columns.strips(_longest(windows, rows, columns, strides, band_bytes)))
    count = len(rows.starts) * sum(len(columns.touching(*strip)) for strip in strips)
    with tqdm(total=count, unit='window', leave=False, disable=count < 32) as bar:
        for strip in strips:
            # No variable: it would keep this strip's logits beside the next one's.
            yield from _Strip(windows, rows, columns, strip).blocks(batch_size, bar)


def _longest(
    windows: Windows, rows: Axis, columns: Axis, strides: Any, band_bytes: int
) -> int:
    """Width of a strip whose windows' logits need at most ``band_bytes``."""
    if len(columns.starts) == 1:
        return columns.length + 1
    # Windows whose logits are kept at the same time: above one another, and at the
    # sides of a strip.
    deep = min(len(rows.starts), -(-rows.length // strides[0]) + 1)
    sides = 2 * (-(-columns.length // strides[1]) - 1)
    height, width = windows.size
    pixel = 4 * windows.num_classes
    column = 5 * ROWS * pixel  # of the rows at hand, and what is computed from them

    def count(of_window: float) -> int:
        rest = band_bytes - sides * of_window - columns.length * column
        return int(rest // (of_window + strides[1] * column))

    fitting = count(deep * height * width * pixel)
    if fitting < len(columns.starts):
        # Perhaps too much: learn how small the decoder's logits are.
        height, width, _ = windows.logits(0, [0])[0].shape
        fitting = count(deep * height * width * pixel)
    return columns.length + max(1, (fitting - 1) * strides[1])


class _Strip:
    """Pass down a strip of the output, from its first window to the last."""

    def __init__(
        self, windows: Windows, rows: Axis, columns: Axis, strip: tuple[int, int]
    ) -> None:
        self.windows, self.strip = windows, strip
        self.rows, self.columns = rows, columns
        device = windows.device
        self.weight = (rows.weight[:, None] * columns.weight)[..., None].to(device)
        self.left = int(columns.places.first[strip[0]])
        self.right = int(columns.places.second[strip[1] - 1]) + 1
        # Windows form a grid: the sum of weights is the product of the two axes' sums.
        self.totals = (
            rows.total.to(device)[:, None, None],
            columns.total[self.left : self.right, None].to(device),
        )
        self.done: list[tuple[int, int, Tensor]] = []  # y, x, logits

    def blocks(self, batch_size: int, bar: tqdm) -> Iterator[Block]:
        """Yield rows as soon as no window below touches them."""
        rows, finished = self.rows, 0
        starts = self.columns.touching(*self.strip)
        for y, below in zip(rows.starts, [*rows.starts[1:], rows.size], strict=True):
            top = int(rows.places.first[finished])
            self.done = [part for part in self.done if part[0] + rows.length > top]
            for number in range(0, len(starts), batch_size):
                corners = starts[number : number + batch_size]
                found = self.windows.logits(y, corners)
                self.done += zip([y] * len(corners), corners, found, strict=True)
                bar.update(len(corners))
            ready = rows.finished(below)
            for begin in range(finished, ready, ROWS):
                end = min(begin + ROWS, ready)
                logits = self._finish(begin, end).permute(2, 0, 1)
                yield slice(begin, end), slice(*self.strip), logits
            finished = ready
            if finished == rows.out:
                return

    def _finish(self, begin: int, end: int) -> Tensor:
        """Logits of outputs ``begin`` to ``end``, (rows, columns, num_classes)."""
        low, high = (
            int(self.rows.places.first[begin]),
            int(self.rows.places.second[end - 1]) + 1,
        )
        mean = self._mean(low, high)
        mean = self.rows.resample(mean, begin, end, low, 0)
        return self.columns.resample(mean, *self.strip, self.left, 1)

    def _mean(self, low: int, high: int) -> Tensor:
        """Average of all windows in rows ``low`` to ``high`` of the image."""
        height, width = self.windows.size
        if len(self.rows.starts) == len(self.columns.starts) == 1:
            ((_, _, logits),) = self.done
            return self.windows.enlarged(logits, low, high)[:, self.left : self.right]
        size = high - low, self.right - self.left, self.windows.num_classes
        sums = torch.zeros(size, device=self.windows.device)
        for y, x, logits in self.done:
            top, bottom = max(low, y), min(high, y + height)
            begin, end = max(x, self.left), min(x + width, self.right)
            if top < bottom and begin < end:
                part = self.windows.enlarged(logits, top - y, bottom - y)
                weight = self.weight[top - y : bottom - y, begin - x : end - x]
                place = sums[
                    top - low : bottom - low, begin - self.left : end - self.left
                ]
                place.addcmul_(part[:, begin - x : end - x], weight)
        return sums.div_(self.totals[0][low:high] * self.totals[1])
