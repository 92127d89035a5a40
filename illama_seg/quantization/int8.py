"""The integer arithmetic itself, on a CPU: 8-bit factors, 32-bit sums.

torch has two products for it, both by oneDNN (on AVX-512 VNNI about twice as fast as
in bfloat16): ``_int_mm``, signed by signed, exact in int32; and ``qlinear_pointwise``,
which also scales the sums and adds the bias, and is fast for unsigned by signed only
(for signed by signed it is some thousand times slower). Neither has a batch of
matrices, so the attention goes from head to head. Where a self-test finds that either
loses digits, both are computed in float64. Shape letters: layers/attention.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.quantization.masks import mask_rows

# Bytes of a block of scores, to stay in a core's own cache, and its rows at most.
CACHE = 1 << 20
ROWS = 256
_OFFSET = 128  # unsigned = signed + offset


def to_int8(x: Tensor, step: float, offset: int = 0) -> Tensor:
    """clamp(round(x / step), -128, 127) + offset, as int8; as uint8 if offset is 128.

    ``x`` in float32 or bfloat16, any shape, unchanged.
    """
    # An even offset before the rounding changes no tie.
    start = torch.tensor(float(offset))
    rounded = torch.add(start, x.float(), alpha=1 / step).round_()
    rounded.clamp_(offset - 128, offset + 127)
    return rounded.to(torch.uint8 if offset == _OFFSET else torch.int8)


@functools.cache
def wrong_products() -> str:
    """Test whether this processor adds up 8-bit products without losing any.

    Instructions from before VNNI add pairs of products in 16 bits, where the largest
    ones saturate: outputs are wrong by a third. There the products are computed in
    float64, which is exact and slow.

    Returns:
        The first sum of the largest integers that is wrong, in words; '' for none.
    """
    shapes = (1, 64, 64), (5, 192, 65), (64, 576, 192), (197, 64, 8)
    for rows, size, columns in shapes:
        for a, b in ((127, 127), (-128, 127), (127, -128), (-128, -128)):
            left = torch.full((rows, size), a, dtype=torch.int8)
            right = torch.full((columns, size), b, dtype=torch.int8)
            unsigned = left.int().add(_OFFSET).to(torch.uint8)
            packed = torch.ops.onednn.qlinear_prepack(right, None)
            ones, zeros = torch.ones(columns), torch.zeros(columns, dtype=torch.int32)
            signed_sums = torch._int_mm(left, right.mT)
            sums = torch.ops.onednn.qlinear_pointwise(
                unsigned, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32,
                'none', [], '',
            )  # fmt: skip
            for first, found in ((a, signed_sums), (a + _OFFSET, sums)):
                expected = first * b * size
                if (found != expected).any():
                    return (
                        f'{size} products of {first} and {b} add up to '
                        f'{int(found[0, 0])}, expected {expected}'
                    )
    return ''


class Int8Linear(nn.Module):
    """``x W^T + b`` with 8-bit x and W.

    Args:
        in_features: channels of input.
        out_features: channels of output.
        bias: whether there is one.

    Raises:
        UserError: for an input that is not on the CPU.
    """

    weight: Tensor
    weight_step: Tensor
    step: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        weight = torch.zeros(out_features, in_features, dtype=torch.int8)
        self.register_buffer('weight', weight)
        self.register_buffer('weight_step', torch.ones(out_features))
        self.register_buffer('step', torch.ones(1))
        self.register_buffer('bias', torch.zeros(out_features) if bias else None)
        self._packed: tuple | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features) float32, bfloat16 in autocast."""
        if not x.is_cpu:
            raise UserError(
                f'8-bit integers run on a CPU, the input is on {x.device}: use '
                "device='cpu'"
            )
        dtype = _output_dtype()
        if wrong_products():
            step = self.step.item()
            sums = F.linear(to_int8(x, step).double(), self.weight.double())
            out = sums.float().mul_(self.weight_step * step)
            return (out if self.bias is None else out.add_(self.bias)).to(dtype)
        weight, step, zeros = self._prepared()
        flat = to_int8(x, step, offset=_OFFSET).flatten(0, -2)
        out = torch.ops.onednn.qlinear_pointwise(
            flat, step, _OFFSET, weight, self.weight_step, zeros, self.bias,
            1.0, 0, dtype, 'none', [], '',
        )  # fmt: skip
        return out.unflatten(0, x.shape[:-1])

    def _prepared(self) -> tuple:
        """Weight in oneDNN's layout, step as a number; made anew when they change."""
        key = self.weight.data_ptr(), self.weight._version, self.step._version
        if self._packed is None or self._packed[0] != key:
            packed = torch.ops.onednn.qlinear_prepack(self.weight, None)
            zeros = torch.zeros(len(self.weight), dtype=torch.int32)
            self._packed = key, (packed, self.step.item(), zeros)
        return self._packed[1]

    def __getstate__(self) -> dict:
        return self.__dict__ | dict(_packed=None)  # oneDNN's layout cannot be copied

    def extra_repr(self) -> str:
        out, size = self.weight.shape
        return f'{size}, {out}, bias={self.bias is not None}'


def _output_dtype() -> torch.dtype:
    half = torch.is_autocast_enabled('cpu')
    return torch.get_autocast_dtype('cpu') if half else torch.float32


def int8_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    steps: tuple[float, float, float, float],
    mask: str,
    rate: float,
) -> Tensor:
    """Attention whose two products are of 8-bit integers.

    Args:
        q, k, v: (B, h, N, d), float32 or bfloat16, on the CPU.
        steps: step sizes of q, k, v and of the masked probabilities (unsigned).
        mask: a name of `illama_seg.layers.MASKS`.
        rate: soft mask rate, of the mask 'soft'.

    Returns:
        (B, h, N, d) in the dtype of q, stored as (B, N, h, d).
    """
    b, h, n, d = q.shape
    q_step, k_step, v_step, p_step = steps
    q8, k8, v8 = (
        to_int8(x, step).flatten(0, 1).contiguous()
        for x, step in zip((q, k, v), (q_step, k_step, v_step), strict=True)
    )
    out = q.new_empty(b * h, n, d)
    # Probabilities go in as p - 128, to be signed; this is what that takes away.
    missing = v8.sum(1, keepdim=True, dtype=torch.int32) * _OFFSET
    keys, values = k8.mT.unbind(0), v8.unbind(0)
    size = min(ROWS, n)
    heads = min(b * h, max(1, CACHE // (4 * size * n)))
    scratch = _Scratch(heads * size * max(n, d))
    for start in range(0, n, size):
        rows = range(start, min(start + size, n))
        hidden, seen = mask_rows(mask, rate, rows, n)
        factor = 1 / p_step if seen is None else seen.div_(p_step)
        for first in range(0, b * h, heads):
            group = slice(first, min(first + heads, b * h))
            queries = q8[group, start : rows.stop].unbind(0)
            scores = scratch.integers(len(queries), len(rows), n)
            _products(queries, keys[group], scores)
            p = scratch.floats(*scores.shape)
            torch.mul(scores, q_step * k_step * d**-0.5, out=p)
            if hidden is not None:
                p.masked_fill_(hidden, float('-inf'))
            torch.softmax(p, -1, out=p)
            p.mul_(factor).sub_(_OFFSET).round_()
            if 255.5 * p_step <= 1:  # else none is too large
                p.clamp_(max=255 - _OFFSET)
            p8 = p.to(torch.int8).unbind(0)
            sums = scratch.integers(len(queries), len(rows), d)
            _products(p8, values[group], sums)
            sums += missing[group]
            out[group, start : rows.stop] = sums * (p_step * v_step)
    return out.view(b, h, n, d)


class _Scratch:
    """Memory for a block's matrices: new pages for each take longer than the work."""

    def __init__(self, size: int) -> None:
        self._integers = torch.empty(size, dtype=torch.int32)
        self._floats = torch.empty(size)

    def integers(self, *shape: int) -> Tensor:
        return self._integers[: math.prod(shape)].view(shape)

    def floats(self, *shape: int) -> Tensor:
        return self._floats[: math.prod(shape)].view(shape)


def _products(a: Sequence[Tensor], b: Sequence[Tensor], out: Tensor) -> None:
    for left, right, target in zip(a, b, out.unbind(0), strict=True):
        if wrong_products():
            target.copy_(left.double() @ right.double())
        else:
            torch._int_mm(left, right, out=target)
