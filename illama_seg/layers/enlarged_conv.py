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
    padding=1)`` with ``enlarged`` by ``F.interpolate(..., mode='bilinear')``.

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
    # A map of full size, or a larger one, has nothing to gain.
    parts: list[list] = [[], []]
    for x, w in zip(maps, weights, strict=True):
        parts[x.shape[2] * x.shape[3] < size[0] * size[1]].append((x, w))
    direct, coarse = parts
    out = F.conv2d(
        torch.cat([_enlarged(x, size, align_corners) for x, _ in direct], dim=1),
        torch.cat([w for _, w in direct], dim=1),
        bias,
        padding=1,
    )
    return out + _by_taps(coarse, size, align_corners) if coarse else out


def _enlarged(x: Tensor, size: torch.Size, align_corners: bool) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


def _by_taps(
    coarse: list[tuple[Tensor, Tensor]], size: torch.Size, align_corners: bool
) -> Tensor:
    """Sum of the convolutions of enlarged maps, (B, O, H, W)."""
    height, width = size
    rows = []  # of each map: (B, h, 3, W, O), one row for each tap along the height
    for x, weight in coarse:
        batch, channels, h, w = x.shape
        # Rows by tap along the width, tap along the height, output channel.
        taps = weight.permute(3, 2, 0, 1).reshape(-1, channels)
        products = linear(x.permute(0, 2, 3, 1), taps).reshape(batch * h, w * 3, -1)
        wide = torch.cat(
            [
                _times(shifts.flatten(1), products[:, 3 * low : 3 * high])
                for shifts, low, high in _blocks(w, width, align_corners, products)
            ],
            dim=1,
        )
        rows.append(wide.view(batch, h, width, 3, -1).transpose(2, 3))
    blocks = [_blocks(x.shape[2], height, align_corners, rows[0]) for x, _ in coarse]
    out = []
    for together in zip(*blocks, strict=True):
        needed = [
            row[:, low:high] for row, (_, low, high) in zip(rows, together, strict=True)
        ]
        stacked = torch.cat(needed, dim=1).flatten(3).flatten(1, 2)
        shifts = torch.cat([matrix.flatten(1) for matrix, *_ in together], dim=1)
        out.append(_times(shifts, stacked))
    return torch.cat(out, dim=1).unflatten(2, (width, -1)).permute(0, 3, 1, 2)


def _times(matrix: Tensor, batch: Tensor) -> Tensor:
    """Multiply each of a batch of matrices from the left by one matrix."""
    # Contiguous: oneDNN takes no batch that repeats itself, and torch's own is slow.
    return torch.bmm(matrix.expand(len(batch), -1, -1).contiguous(), batch)


def _blocks(
    size: int, out: int, align_corners: bool, like: Tensor
) -> list[tuple[Tensor, int, int]]:
    """Cut enlarging and shifting along one axis into blocks of the output.

    Returns:
        For each block its matrix (outputs, high - low, 3), by tap, and the range
        ``low`` to ``high`` of the inputs that are not multiplied by zeros.
    """
    with torch.no_grad():
        dtype = like.dtype if like.dtype == torch.float64 else torch.float32
        one = torch.eye(size, dtype=dtype, device=like.device)[None]
        enlarge = F.interpolate(one, out, mode='linear', align_corners=align_corners)
        # Tap t of output X reads X + t - 1; beyond the borders is zero padding.
        shifts = F.pad(enlarge[0].T, (0, 0, 1, 1)).unfold(0, 3, 1).to(like.dtype)
    count = max(1, round(out / BLOCK))
    bounds = [out * k // count for k in range(count + 1)]
    blocks = []
    for begin, end in itertools.pairwise(bounds):
        low, high = 0, size
        if count > 1:
            low = max(0, (begin - 1) * size // out - 2)
            high = min(size, (end + 1) * size // out + 3)
        blocks.append((shifts[begin:end, low:high], low, high))
    return blocks
