"""Windows over an image of any size, and the average of their maps, in bounded memory.

Windows have the places of mmseg's ``slide_inference``. They are computed row by row,
and their maps are kept as the decoder makes them: UPerNet's at a quarter of the size. A
few rows of pixels at a time are enlarged, averaged and yielded, as soon as no later
window touches them. A wide image is cut into strips.

What computes the maps, and whose arrays they are, is left to the caller: torch's or
NumPy's, see :class:`Maps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from illama_seg.errors import UserError


def _hann(length: int) -> np.ndarray:
    return np.sin(np.pi * np.arange(1, length + 1) / (length + 1)) ** 2


def _gaussian(length: int) -> np.ndarray:
    return np.exp(-32 * ((np.arange(length) - (length - 1) / 2) / length) ** 2)


# Weights of a window's pixels along one side, where windows overlap.
BLENDS: dict[str, Callable[[int], np.ndarray]] = {
    'mean': np.ones,
    'hann': _hann,
    'gaussian': _gaussian,  # of a standard deviation of an eighth of the side
}

ROWS = 16  # of the output, enlarged at a time: they stay in the processor's cache
# Rows and columns of the output, and their values (rows, columns, channels).
Block = tuple[slice, slice, Any]


class Places(NamedTuple):
    """Outputs of an interpolation along one axis: two neighbours of each."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray  # of the second neighbour

    @classmethod
    def of(cls, size: int, out: int, align_corners: bool) -> Places:
        """Place ``out`` outputs between ``size`` inputs, as ``F.interpolate`` does."""
        places = np.arange(out, dtype=np.float32)
        if align_corners and out > 1:
            places = places * np.float32((size - 1) / (out - 1))
        elif not align_corners:
            places = (places + np.float32(0.5)) * np.float32(size / out)
            places = np.maximum(places - np.float32(0.5), np.float32(0))
        first = np.minimum(places.astype(np.int64), size - 1)
        second = np.minimum(first + (size != out), size - 1)
        return cls(first, second, places - first.astype(np.float32))

    def part(self, begin: int, end: int, offset: int = 0) -> Places:
        """Return outputs ``begin`` to ``end`` of inputs from ``offset`` on."""
        first, second = (
            inputs[begin:end] - offset for inputs in (self.first, self.second)
        )
        return Places(first, second, self.share[begin:end])


class Maps(Protocol):
    """Maps of an image's windows, arrays (height, width, channels).

    Attributes:
        size: (height, width) of a window in pixels.
        channels: of a map.
    """

    size: tuple[int, int]
    channels: int

    def compute(self, y: int, corners: list[int]) -> list[Any]:
        """Compute the windows at row y and some columns, as small as they come."""

    def enlarged(self, values: Any, begin: int, end: int) -> Any:
        """Enlarge a map to rows ``begin`` to ``end`` of its window."""

    def interpolated(self, values: Any, places: Places, axis: int) -> Any:
        """Interpolate an array along its rows (axis 0) or columns (axis 1)."""

    def array(self, values: np.ndarray) -> Any:
        """Return an array of NumPy as one of the maps' own kind."""


class Axis:
    """Height or width: places of its windows, and interpolation to the output.

    Args:
        size: pixels of the model's input.
        out: pixels of the output; maps are interpolated linearly.
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
        self.stride = stride
        count = -(-max(size - crop, 0) // stride) + 1
        self.starts = [min(k * stride, size - self.length) for k in range(count)]
        self.weight = BLENDS[blend](self.length).astype(np.float32)
        self.total = np.zeros(size, np.float32)
        for start in self.starts:
            self.total[start : start + self.length] += self.weight
        self.places = Places.of(size, out, align_corners)

    def finished(self, end: int) -> int:
        """Count the outputs that need no pixel from ``end`` on."""
        return int(np.searchsorted(self.places.second, end))

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


def average(
    maps: Maps,
    rows: Axis,
    columns: Axis,
    *,
    batch_size: int = 1,
    band_bytes: int = 2**30,
    progress: Callable[[int, int], object] = lambda count, total: None,
) -> Iterator[Block]:
    """Average the maps of all windows, in blocks that cover the output once.

    Memory holds ``band_bytes`` of float32 numbers and what a batch of windows needs. An
    image too wide for ``band_bytes`` is cut into strips; windows on a cut are computed
    twice.

    Args:
        maps: of windows of ``rows.length`` x ``columns.length`` pixels.
        rows: height.
        columns: width.
        batch_size: windows that are computed at once.
        band_bytes: memory for the maps of windows that overlap, and for the rows that
            are computed from them; at least one window's.
        progress: called with the number of windows that were computed since, and of
            all windows.

    Yields:
        Rows and columns of the output, and their values (rows, columns, channels).
    """
    strips = list(columns.strips(_longest(maps, rows, columns, band_bytes)))
    total = len(rows.starts) * sum(len(columns.touching(*strip)) for strip in strips)
    for strip in strips:
        # No variable: it would keep this strip's maps beside the next one's.
        yield from _Strip(maps, rows, columns, strip).blocks(
            batch_size, lambda count: progress(count, total)
        )


def _longest(maps: Maps, rows: Axis, columns: Axis, band_bytes: int) -> int:
    """Width of a strip whose windows' maps need at most ``band_bytes``."""
    if len(columns.starts) == 1:
        return columns.length + 1
    # Windows whose maps are kept at the same time: above one another, and at the sides
    # of a strip.
    deep = min(len(rows.starts), -(-rows.length // rows.stride) + 1)
    sides = 2 * (-(-columns.length // columns.stride) - 1)
    height, width = maps.size
    pixel = 4 * maps.channels
    column = 5 * ROWS * pixel  # of the rows at hand, and what is computed from them

    def count(of_window: float) -> int:
        rest = band_bytes - sides * of_window - columns.length * column
        return int(rest // (of_window + columns.stride * column))

    fitting = count(deep * height * width * pixel)
    if fitting < len(columns.starts):
        # Perhaps too much: learn how small the decoder's maps are.
        height, width, _ = maps.compute(0, [0])[0].shape
        fitting = count(deep * height * width * pixel)
    return columns.length + max(1, (fitting - 1) * columns.stride)


class _Strip:
    """Pass down a strip of the output, from its first window to the last."""

    def __init__(
        self, maps: Maps, rows: Axis, columns: Axis, strip: tuple[int, int]
    ) -> None:
        self.maps, self.strip = maps, strip
        self.rows, self.columns = rows, columns
        self.weight = maps.array((rows.weight[:, None] * columns.weight)[..., None])
        self.left = int(columns.places.first[strip[0]])
        self.right = int(columns.places.second[strip[1] - 1]) + 1
        # Windows form a grid: the sum of weights is the product of the two axes' sums.
        self.totals = (
            maps.array(rows.total[:, None, None]),
            maps.array(columns.total[self.left : self.right, None]),
        )
        self.done: list[tuple[int, int, Any]] = []  # y, x, map

    def blocks(
        self, batch_size: int, progress: Callable[[int], object]
    ) -> Iterator[Block]:
        """Yield rows as soon as no window below touches them."""
        rows, finished = self.rows, 0
        starts = self.columns.touching(*self.strip)
        for y, below in zip(rows.starts, [*rows.starts[1:], rows.size], strict=True):
            top = int(rows.places.first[finished])
            self.done = [part for part in self.done if part[0] + rows.length > top]
            for number in range(0, len(starts), batch_size):
                corners = starts[number : number + batch_size]
                found = self.maps.compute(y, corners)
                self.done += zip([y] * len(corners), corners, found, strict=True)
                progress(len(corners))
            ready = rows.finished(below)
            for begin in range(finished, ready, ROWS):
                end = min(begin + ROWS, ready)
                yield slice(begin, end), slice(*self.strip), self._finish(begin, end)
            finished = ready
            if finished == rows.out:
                return

    def _finish(self, begin: int, end: int) -> Any:
        """Values of outputs ``begin`` to ``end``, (rows, columns, channels)."""
        rows, columns = self.rows, self.columns
        low = int(rows.places.first[begin])
        values = self._mean(low, int(rows.places.second[end - 1]) + 1)
        if rows.size != rows.out:
            places = rows.places.part(begin, end, low)
            values = self.maps.interpolated(values, places, 0)
        if columns.size != columns.out:
            places = columns.places.part(*self.strip, self.left)
            values = self.maps.interpolated(values, places, 1)
        return values

    def _mean(self, low: int, high: int) -> Any:
        """Average of all windows in rows ``low`` to ``high`` of the image."""
        height, width = self.maps.size
        if len(self.rows.starts) == len(self.columns.starts) == 1:
            ((_, _, values),) = self.done
            return self.maps.enlarged(values, low, high)[:, self.left : self.right]
        size = high - low, self.right - self.left, self.maps.channels
        sums = self.maps.array(np.zeros(size, np.float32))
        for y, x, values in self.done:
            top, bottom = max(low, y), min(high, y + height)
            begin, end = max(x, self.left), min(x + width, self.right)
            if top < bottom and begin < end:
                part = self.maps.enlarged(values, top - y, bottom - y)
                weight = self.weight[top - y : bottom - y, begin - x : end - x]
                place = sums[
                    top - low : bottom - low, begin - self.left : end - self.left
                ]
                place += part[:, begin - x : end - x] * weight
        sums /= self.totals[0][low:high] * self.totals[1]
        return sums
