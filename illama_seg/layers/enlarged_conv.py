"""3x3 convolution of enlarged maps, computed at the maps' own resolution.

A decoder enlarges coarse maps bilinearly, concatenates them with a fine one and
convolves the result. Enlarging acts on places and the products act on channels, so the
two can change places, exactly: the nine taps are 1x1 products of the coarse map, each
is then enlarged and shifted by its tap, and they are added. A map enlarged by 2 costs a
quarter of the products, and no enlarged map is stored.

Enlarging and shifting is linear along each axis: one small matrix for the width, one
for the height. The height's matrix adds the taps and the maps up as well.

Shape letters: B images, C channels of a map, O channels of the output, h x w pixels of
a map, H x W pixels of the output.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from illama_seg.layers.linear_layer import linear

# Pixels of the output that one matrix product makes along an axis: the matrices are
# banded, and a longer product would multiply more zeros.
BLOCK = 32


def conv_of_enlarged(
    maps: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """Convolve the concatenation of maps that are enlarged to the size of the first.

    Equals, to rounding, ``F.conv2d(torch.cat([maps[0], *enlarged]), weight, bias,
    padding=1)`` with ``enlarged`` by ``F.interpolate(..., mode='bilinear')``. A pixel
    that is not finite spreads further: other pixels multiply it by 0.

    Args:
        maps: (B, C, h, w) each; C, h and w may differ.
        weight: (O, sum of all C, 3, 3).
        bias: (O,), or None.
        align_corners: as in ``F.interpolate``.

    Returns:
        (B, O, H, W), with H x W the size of ``maps[0]``.
    """
    size = maps[0].shape[-2:]
    weights = weight.split([x.shape[1] for x in maps], dim=1)
    direct: list[tuple[Tensor, Tensor]] = []
    coarse: list[tuple[Tensor, Tensor]] = []
    for number, (x, w) in enumerate(zip(maps, weights, strict=True)):
        # A map of full size, or a larger one, has nothing to gain. A graph for any
        # size does not ask; both ways give the same.
        if torch.compiler.is_exporting():
            gains = number > 0
        else:
            gains = x.shape[2] * x.shape[3] < size[0] * size[1]
        (coarse if gains else direct).append((x, w))
    out = F.conv2d(
        torch.cat([_enlarged(x, size, align_corners) for x, _ in direct], dim=1),
        torch.cat([w for _, w in direct], dim=1),
        bias,
        padding=1,
    )
    # In place: the sum keeps the layout of the convolution's result.
    return out.add_(_by_taps(coarse, size, align_corners)) if coarse else out


def _enlarged(x: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


def _by_taps(
    coarse: list[tuple[Tensor, Tensor]], size: torch.Size, align_corners: bool
) -> Tensor:
    """Sum of the convolutions of enlarged maps, (B, O, H, W)."""
    height, width = size
    rows, matrices = [], []  # of each map: (B, h * 3, W * O), by tap along the height
    for x, weight in coarse:
        batch, channels, h, w = x.shape
        # Rows by tap along the width, tap along the height, output channel.
        taps = weight.permute(3, 2, 0, 1).reshape(-1, channels)
        products = linear(x.permute(0, 2, 3, 1), taps).reshape(batch * h, w * 3, -1)
        matrix = _enlarge_and_shift(w, width, align_corners, products)
        wide = _product(3, matrix, products).view(batch, h, width, 3, -1)
        rows.append(wide.transpose(2, 3).reshape(batch, h * 3, -1))
        matrices.append(_enlarge_and_shift(h, height, align_corners, products))
    out = _product(3, *matrices, *rows)
    return out.unflatten(2, (width, -1)).permute(0, 3, 1, 2)


def _enlarge_and_shift(
    size: int, out: int, align_corners: bool, like: Tensor
) -> Tensor:
    """Matrix that enlarges one axis and shifts by each tap, (out, size * 3)."""
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    kind: dict[str, Any] = dict(dtype=dtype, device=like.device)
    # Tap t of output X reads X + t - 1; beyond the borders is zero padding.
    reads = torch.arange(out, **kind)[:, None] + torch.arange(-1, 2, **kind)
    inside = (reads >= 0) & (reads < out)
    if align_corners:
        places = reads * ((size - 1) / max(out - 1, 1))
    else:
        places = (reads + 0.5) * (size / out) - 0.5
    distances = torch.arange(size, **kind)[:, None] - places.clamp(0, size - 1)[:, None]
    weights = (1 - distances.abs()).clamp(min=0) * inside[:, None]
    return weights.flatten(1).to(like.dtype)


def _banded(taps: int, *tensors: Tensor) -> Tensor:
    """Multiply by banded matrices, block by block without their zeros, and add up.

    Args:
        taps: rows of an input to a pixel, or minus the rows of the output to a pixel.
        tensors: matrices (out, in), then as many inputs (N, in, M).

    Returns:
        (N, out, M).
    """
    matrices, inputs = _halves(tensors)
    blocks = []
    for begin, end in itertools.pairwise(_bounds(len(matrices[0]))):
        bands = [_band(begin, end, matrix.shape, taps) for matrix in matrices]
        pairs = list(zip(matrices, inputs, bands, strict=True))
        part = torch.cat([m[begin:end, low:high] for m, _, (low, high) in pairs], dim=1)
        rows = [x[:, low:high] for _, x, (low, high) in pairs]
        stacked = torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]
        # Contiguous: oneDNN takes no batch that repeats itself, and torch's is slow.
        part = part.expand(len(stacked), -1, -1).contiguous()
        blocks.append(torch.bmm(part, stacked))
    return torch.cat(blocks, dim=1)


class _Banded(torch.autograd.Function):
    """:func:`_banded` with a gradient that leaves the zeros out too."""

    @staticmethod
    def forward(ctx: Any, taps: int, *tensors: Tensor) -> Tensor:
        """Keep the matrices, which are small."""
        ctx.taps = taps
        ctx.save_for_backward(*_halves(tensors)[0])
        return _banded(taps, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        """Multiply by the transposed matrices."""
        matrices = ctx.saved_tensors
        needed = ctx.needs_input_grad[1 + len(matrices) :]
        grads = [
            _product(-ctx.taps, matrix.T, grad.contiguous()) if wanted else None
            for matrix, wanted in zip(matrices, needed, strict=True)
        ]
        return None, *[None] * len(matrices), *grads


def _product(taps: int, *tensors: Tensor) -> Tensor:
    if torch.compiler.is_exporting():  # a graph for any size has no blocks
        matrices, inputs = _halves(tensors)
        return torch.cat(list(matrices), dim=1) @ torch.cat(list(inputs), dim=1)
    compiling = torch.compiler.is_compiling()
    return _banded(taps, *tensors) if compiling else _Banded.apply(taps, *tensors)


def _halves(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    half = len(tensors) // 2
    return tensors[:half], tensors[half:]


def _bounds(length: int) -> list[int]:
    count = max(1, round(length / BLOCK))
    return [length * k // count for k in range(count + 1)]


def _band(begin: int, end: int, shape: torch.Size, taps: int) -> tuple[int, int]:
    """Range of the inputs that rows ``begin`` to ``end`` of a matrix do not zero."""
    out, size = shape
    if taps > 0:  # inputs by tap: pixels of the small map
        size //= taps
    else:
        begin, end, out = begin // -taps, -(end // taps), out // -taps
    # A pixel reads two neighbours of the pixel beside it, or is read by them.
    margin = 3 + 3 * size // out
    low = max(0, begin * size // out - margin)
    high = min(size, end * size // out + margin)
    return (low * taps, high * taps) if taps > 0 else (low, high)
