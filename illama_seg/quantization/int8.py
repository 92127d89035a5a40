"""The integer arithmetic itself, on a CPU: 8-bit factors, 32-bit sums.

torch has two products for it, both by oneDNN (on AVX-512 VNNI about twice as fast as
in bfloat16): ``_int_mm``, signed by signed, exact in int32; and ``qlinear_pointwise``,
which also scales the sums and adds the bias, and is fast for unsigned by signed only
(for signed by signed it is some thousand times slower). Neither has a batch of
matrices, so the attention goes from head to head. Shape letters: layers/attention.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from illama_seg.quantization.probabilities import probabilities

# Bytes of a block of scores, to stay in a core's own cache, and its rows at most.
CACHE = 1 << 20
ROWS = 256
_OFFSET = 128  # unsigned = signed + offset


def to_int8(x: Tensor, step: float, low: int = -128, offset: int = 0) -> Tensor:
    """clamp(round(x / step), low, low + 255) + offset as int8, or uint8 if offset.

    ``x`` in float32 or bfloat16, any shape, unchanged.
    """
    rounded = torch.mul(x.float(), 1 / step).round_()
    rounded.clamp_(low, low + 255)
    if offset:
        rounded += offset
    return rounded.to(torch.uint8 if low + offset == 0 else torch.int8)


class Int8Linear(nn.Module):
    """``x W^T + b`` with 8-bit x and W.

    Args:
        in_features: channels of input.
        out_features: channels of output.
        bias: whether there is one.

    Raises:
        ValueError: for an input that is not on the CPU.
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
            raise ValueError(
                f'8-bit integers run on a CPU, the input is on {x.device}: use '
                '--device cpu'
            )
        weight, step, zeros = self._prepared()
        flat = to_int8(x, step, offset=_OFFSET).flatten(0, -2)
        dtype = _output_dtype()
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
    rows = min(ROWS, n)
    heads = min(b * h, max(1, CACHE // (4 * rows * n)))
    scores = torch.empty(heads * rows * n, dtype=torch.int32)
    weights = torch.empty(heads * rows * n)
    sums = torch.empty(heads * rows * d, dtype=torch.int32)
    for first in range(0, b * h, heads):
        group = range(first, min(first + heads, b * h))
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            shape = len(group), stop - start, n
            block = scores[: math.prod(shape)].view(shape)
            p = weights[: math.prod(shape)].view(shape)
            for place, head in enumerate(group):
                torch._int_mm(q8[head, start:stop], k8[head].T, out=block[place])
            torch.mul(block, q_step * k_step * d**-0.5, out=p)
            probabilities(p, mask, rate, start)
            p8 = p.mul_(1 / p_step).round_().clamp_(max=255).sub_(_OFFSET)
            p8 = p8.to(torch.int8)
            shape = len(group), stop - start, d
            block = sums[: math.prod(shape)].view(shape)
            for place, head in enumerate(group):
                torch._int_mm(p8[place], v8[head], out=block[place])
            block += missing[first : group.stop]
            out[first : group.stop, start:stop] = block * (p_step * v_step)
    return out.view(b, h, n, d)
