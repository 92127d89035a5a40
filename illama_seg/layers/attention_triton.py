"""Exact soft-masked attention as fused Triton kernels, forward and backward.

A program owns a block of rows and walks the other axis once. The softmax denominator
sums over all keys. At a = 0 the value product covers past keys only: three quarters of
the FLOPs of bidirectional attention. A walk has four stretches: blocks before
the diagonal (0), blocks on it (1: S element by element), blocks after it (2), and
the ragged last block (3). The gradients need no atomics, so they are deterministic.
Shape letters: see attention.py.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from illama_seg.layers.attention_op import define_attention, heads_last

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
# (BLOCK_M rows, BLOCK_N keys, num_warps, num_stages) for heads up to 64 wide in 16
# bits on a GPU with much shared memory. dkdv may take no more rows at once than dq.
CONFIGS = {'forward': (128, 64, 4, 3), 'dq': (128, 64, 8, 3), 'dkdv': (64, 128, 8, 3)}
SMALL_CONFIG = (64, 64, 8, 2)
FLOAT32_CONFIG = (64, 32, 4, 2)

# Three tf32 products make a float32 one; plain tf32 would lose half the digits.
PRECISION = tl.constexpr('tf32x3')
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _load(ptr, stride, rows, n, D: tl.constexpr, RAGGED: tl.constexpr):
    """Rows of one head, with zeros past the last row and in padded channels."""
    BLOCK_D: tl.constexpr = triton.next_power_of_2(D)
    cols = tl.arange(0, BLOCK_D)[None, :]
    ptrs = ptr + rows[:, None] * stride + cols
    if RAGGED:
        tile = tl.load(ptrs, mask=(rows < n)[:, None] & (cols < D), other=0.0)
    elif D < BLOCK_D:
        tile = tl.load(ptrs, mask=cols < D, other=0.0)
    else:
        tile = tl.load(ptrs)
    return tile


@triton.jit
def _store(ptr, stride, rows, n, tile, D: tl.constexpr):
    BLOCK_D: tl.constexpr = triton.next_power_of_2(D)
    cols = tl.arange(0, BLOCK_D)[None, :]
    mask = (rows < n)[:, None] & (cols < D)
    ptrs = ptr + rows[:, None] * stride + cols
    tl.store(ptrs, tile.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def _stretch(first, SIZE: tl.constexpr, n, BLOCK: tl.constexpr, STRETCH: tl.constexpr):
    """Start and end of a stretch on the other axis, for a block of SIZE at first."""
    diagonal = first // BLOCK * BLOCK
    after = tl.cdiv(first + SIZE, BLOCK) * BLOCK
    ragged = tl.maximum(after, n // BLOCK * BLOCK)
    if STRETCH == 0:
        start, end = 0, diagonal
    elif STRETCH == 1:
        start, end = diagonal, tl.minimum(after, n)
    elif STRETCH == 2:
        start, end = after, ragged
    else:
        start, end = ragged, n
    return start, end


@triton.jit
def _masked(x, rows, cols, rate, DIAGONAL: tl.constexpr, FUTURE: tl.constexpr):
    """S * x."""
    if DIAGONAL:
        x = tl.where(cols <= rows, x, x * rate)
    elif FUTURE:
        x = x * rate
    return x


@triton.jit
def _my_block(n, heads, BLOCK: tl.constexpr):
    """This program's first row, its (batch, head), and that as one number."""
    blocks = tl.cdiv(n, BLOCK)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    return tl.program_id(0) % blocks * BLOCK, pair // heads, pair % heads, pair


@triton.jit(do_not_specialize=['heads', 'n'])
def _forward_kernel(
    q_ptr, q_by, k_ptr, k_by, v_ptr, v_by, out_ptr, out_by, lse_ptr,
    heads, n, scale, rate,
    D: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    first, b, h, pair = _my_block(n, heads, M)
    rows = first + tl.arange(0, M)
    q = _load(q_ptr + b * q_by[0] + h * q_by[1], q_by[2], rows, n, D, True)
    k_ptr += b * k_by[0] + h * k_by[1]
    v_ptr += b * v_by[0] + h * v_by[1]
    scale *= LOG2E  # exponentials are base 2 here and in the gradients
    acc = tl.zeros([M, triton.next_power_of_2(D)], tl.float32)
    total = tl.zeros([M], tl.float32)
    peak = tl.full([M], float('-inf'), tl.float32)
    acc_peak = peak
    for STRETCH in tl.static_range(4):
        start, end = _stretch(first, M, n, N, STRETCH)
        for block in range(start, end, N):
            cols = block + tl.arange(0, N)
            k = _load(k_ptr, k_by[2], cols, n, D, STRETCH % 2 == 1)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            if STRETCH % 2 == 1:
                s = tl.where((cols < n)[None, :], s, float('-inf'))
            new_peak = tl.maximum(peak, tl.max(s, 1) * scale)
            p = tl.exp2(s * scale - new_peak[:, None])
            shrink = tl.exp2(peak - new_peak)
            total = total * shrink + tl.sum(p, 1)
            peak = new_peak
            if not (CAUSAL and STRETCH > 1):
                v = _load(v_ptr, v_by[2], cols, n, D, STRETCH % 2 == 1)
                p = _masked(
                    p, rows[:, None], cols[None, :], rate, STRETCH == 1, STRETCH > 1
                )
                acc = acc * shrink[:, None]
                acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
        if not (CAUSAL and STRETCH > 1):
            acc_peak = peak
    out = acc * (tl.exp2(acc_peak - peak) / total)[:, None]
    out_ptr += b * out_by[0] + h * out_by[1]
    _store(out_ptr, out_by[2], rows, n, out, D)
    tl.store(lse_ptr + pair * n + rows, peak / LOG2E + tl.log(total), mask=rows < n)


@triton.jit(do_not_specialize=['heads', 'n'])
def _dq_kernel(
    q_ptr, q_by, k_ptr, k_by, v_ptr, v_by, g_ptr, g_by, out_ptr, out_by,
    lse_ptr, dq_ptr, dq_by, lse2_ptr, delta_ptr, padded, heads, n, scale, rate,
    D: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    first, b, h, pair = _my_block(n, heads, M)
    rows = first + tl.arange(0, M)
    q = _load(q_ptr + b * q_by[0] + h * q_by[1], q_by[2], rows, n, D, True)
    g = _load(g_ptr + b * g_by[0] + h * g_by[1], g_by[2], rows, n, D, True)
    out = _load(out_ptr + b * out_by[0] + h * out_by[1], out_by[2], rows, n, D, True)
    k_ptr += b * k_by[0] + h * k_by[1]
    v_ptr += b * v_by[0] + h * v_by[1]
    delta = tl.sum(g.to(tl.float32) * out.to(tl.float32), 1)
    # An infinite log-sum-exp leaves no weight to the rows past the last one.
    lse = tl.load(lse_ptr + pair * n + rows, mask=rows < n, other=float('inf')) * LOG2E
    tl.store(lse2_ptr + pair * padded + rows, lse)
    tl.store(delta_ptr + pair * padded + rows, delta)
    dq = tl.zeros([M, triton.next_power_of_2(D)], tl.float32)
    for STRETCH in tl.static_range(4):
        start, end = _stretch(first, M, n, N, STRETCH)
        for block in range(start, end, N):
            cols = block + tl.arange(0, N)
            k = _load(k_ptr, k_by[2], cols, n, D, STRETCH % 2 == 1)
            s = tl.dot(q, tl.trans(k), input_precision=PRECISION)
            p = tl.exp2(s * (scale * LOG2E) - lse[:, None])
            if STRETCH % 2 == 1:
                p = tl.where((cols < n)[None, :], p, 0.0)
            if CAUSAL and STRETCH > 1:
                ds = -p * delta[:, None]
            else:
                v = _load(v_ptr, v_by[2], cols, n, D, STRETCH % 2 == 1)
                dp = tl.dot(g, tl.trans(v), input_precision=PRECISION)
                dp = _masked(
                    dp, rows[:, None], cols[None, :], rate, STRETCH == 1, STRETCH > 1
                )
                ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    _store(dq_ptr + b * dq_by[0] + h * dq_by[1], dq_by[2], rows, n, dq * scale, D)


@triton.jit(do_not_specialize=['heads', 'n'])
def _dkdv_kernel(
    q_ptr, q_by, k_ptr, k_by, v_ptr, v_by, g_ptr, g_by, dk_ptr, dk_by, dv_ptr, dv_by,
    lse2_ptr, delta_ptr, padded, heads, n, scale, rate,
    D: tl.constexpr, CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    first, b, h, pair = _my_block(n, heads, N)
    cols = first + tl.arange(0, N)
    k = _load(k_ptr + b * k_by[0] + h * k_by[1], k_by[2], cols, n, D, True)
    v = _load(v_ptr + b * v_by[0] + h * v_by[1], v_by[2], cols, n, D, True)
    q_ptr += b * q_by[0] + h * q_by[1]
    g_ptr += b * g_by[0] + h * g_by[1]
    lse2_ptr += pair * padded
    delta_ptr += pair * padded
    dk = tl.zeros([N, triton.next_power_of_2(D)], tl.float32)
    dv = tl.zeros([N, triton.next_power_of_2(D)], tl.float32)
    # To the rows above it (stretch 0) this block is future, to those below it past.
    for STRETCH in tl.static_range(4):
        start, end = _stretch(first, N, n, M, STRETCH)
        for block in range(start, end, M):
            rows = block + tl.arange(0, M)
            q = _load(q_ptr, q_by[2], rows, n, D, STRETCH % 2 == 1)
            lse = tl.load(lse2_ptr + rows)
            delta = tl.load(delta_ptr + rows)
            # Keys by rows, transposed: the weights enter products from registers.
            s = tl.dot(k, tl.trans(q), input_precision=PRECISION)
            p = tl.exp2(s * (scale * LOG2E) - lse[None, :])
            if CAUSAL and STRETCH == 0:
                ds = -p * delta[None, :]
            else:
                g = _load(g_ptr, g_by[2], rows, n, D, STRETCH % 2 == 1)
                weights = _masked(
                    p, rows[None, :], cols[:, None], rate, STRETCH == 1, STRETCH == 0
                )
                dv = tl.dot(weights.to(g.dtype), g, dv, input_precision=PRECISION)
                dp = tl.dot(v, tl.trans(g), input_precision=PRECISION)
                dp = _masked(
                    dp, rows[None, :], cols[:, None], rate, STRETCH == 1, STRETCH == 0
                )
                ds = p * (dp - delta[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    _store(dk_ptr + b * dk_by[0] + h * dk_by[1], dk_by[2], cols, n, dk * scale, D)
    _store(dv_ptr + b * dv_by[0] + h * dv_by[1], dv_by[2], cols, n, dv, D)


def _config(name: str, q: Tensor) -> tuple[int, int, int, int]:
    if q.dtype == torch.float32:
        return FLOAT32_CONFIG
    if INTERPRETED or q.shape[-1] > 64:
        return SMALL_CONFIG
    properties = triton.runtime.driver.active.utils.get_device_properties
    large = properties(q.device.index)['max_shared_mem'] >= 160 * 1024
    return CONFIGS[name] if large else SMALL_CONFIG


def _launch(kernel, name: str, rate: float, q: Tensor, *args: Tensor | int) -> None:
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise NotImplementedError(f'the triton kernels do not take {q.dtype}')
    b, h, n, d = q.shape
    m_size, n_size, warps, stages = _config(name, q)
    grid = (b * h * triton.cdiv(n, n_size if name == 'dkdv' else m_size),)
    flat: list = []
    for x in (q, *args):
        flat.append(x)
        if isinstance(x, Tensor) and x.dim() == 4:
            flat.append(x.stride()[:3])
    with torch.cuda.device_of(q):  # a kernel starts on the current device
        kernel[grid](
            *flat, h, n, d**-0.5, rate, D=d, CAUSAL=rate == 0, M=m_size, N=n_size,
            num_warps=warps, num_stages=stages,
        )  # fmt: skip


def forward(q: Tensor, k: Tensor, v: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    out = heads_last(q)
    lse = q.new_empty(q.shape[:-1], dtype=torch.float32)
    _launch(_forward_kernel, 'forward', rate, q, k, v, out, lse)
    return out, lse


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = heads_last(q), heads_last(k), heads_last(v)
    b, h, n, _ = q.shape
    padded = triton.cdiv(n, _config('dq', q)[0]) * _config('dq', q)[0]
    lse2, delta = lse.new_empty(2, b * h, padded)
    row_values = (lse2, delta, padded)
    _launch(_dq_kernel, 'dq', rate, q, k, v, grad, out, lse, dq, *row_values)
    _launch(_dkdv_kernel, 'dkdv', rate, q, k, v, grad, dk, dv, *row_values)
    return dq, dk, dv


triton_attention = define_attention('triton_attention', forward, backward)
