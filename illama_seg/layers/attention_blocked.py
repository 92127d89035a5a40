"""Exact soft-masked attention on a CPU, in blocks of rows that stay in its cache.

A block's scores are a matrix product, its softmax runs over all keys, and only then
the mask takes what it hides out of the second product: at rate 0 three quarters of
bidirectional attention's products, in O(N) memory. In half precision the scores are
rounded before the softmax, as in the formula under autocast; flash kernels keep them in
float32. Shape letters: attention.py.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from illama_seg.layers.attention_op import define_attention, heads_last

# Of 64, 128 and 256 rows 256 measured fastest in bfloat16, and even with the others in
# float32 at 1025 tokens; 2 to 8 MiB of scores are even.
ROWS = 256
CACHE = 4 << 20


def _groups(q: Tensor) -> Iterator[tuple[slice, slice]]:
    """Samples and heads whose block of scores fits the cache together."""
    b, h, n, _ = q.shape
    fitting = max(1, CACHE // (min(ROWS, n) * n * q.element_size()))
    samples, heads = max(1, fitting // h), min(h, fitting)
    heads = -(-h // -(-h // heads))  # as even as can be
    for i in range(0, b, samples):
        for j in range(0, h, heads):
            yield slice(i, i + samples), slice(j, j + heads)


def _in_one_piece(x: Tensor, group: tuple[slice, slice]) -> Tensor:
    """(samples * heads, N, d); bfloat16 products of rows apart take twice as long."""
    return x[group].flatten(0, 1).contiguous()


class _Scratch:
    """Memory for a block's matrices; new pages for each cost a quarter more time."""

    def __init__(self, q: Tensor, count: int) -> None:
        group = next(_groups(q))
        heads = q[group].flatten(0, 1).shape[0]
        self.memory = q.new_empty(count, heads * min(ROWS, q.shape[2]) * q.shape[2])

    def __call__(self, slot: int, a: Tensor, columns: int) -> Tensor:
        """(heads, rows of a, columns), overwriting what the slot held."""
        shape = a.shape[0], a.shape[1], columns
        return self.memory[slot, : math.prod(shape)].view(shape)


def _softmax(q: Tensor, k: Tensor, out: Tensor) -> Tensor:
    torch.bmm(q, k.mT, out=out)
    return torch.softmax(out, dim=-1, out=out)


def _diagonal_mask(q: Tensor, rate: float) -> Tensor:
    """S of a block on the diagonal."""
    rows = min(ROWS, q.shape[2])
    past = torch.ones(rows, rows, dtype=torch.bool).tril()
    return torch.where(past, q.new_ones(()), q.new_tensor(rate))


def _mask(weights: Tensor, start: int, stop: int, mask: Tensor, rate: float) -> Tensor:
    """S * P, in place, without the keys that no row of the block sees."""
    size = stop - start
    weights[:, :, start:stop] *= mask[:size, :size]
    if rate == 0:
        return weights[:, :, :stop]
    weights[:, :, stop:] *= rate
    return weights


def forward(q: Tensor, k: Tensor, v: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    n, scale = q.shape[2], q.shape[3] ** -0.5
    out, mask, scratch = heads_last(q), _diagonal_mask(q, rate), _Scratch(q, 1)
    for group in _groups(q):
        target = out[group]
        queries, keys, values = (_in_one_piece(x, group) for x in (q, k, v))
        queries = queries * scale
        for start in range(0, n, ROWS):
            stop = min(start + ROWS, n)
            rows = queries[:, start:stop]
            weights = _softmax(rows, keys, scratch(0, rows, n))
            weights = _mask(weights, start, stop, mask, rate)
            block = torch.bmm(weights, values[:, : weights.shape[2]])
            target[:, :, start:stop] = block.unflatten(0, target.shape[:2])
    return out, q.new_empty(0, dtype=torch.promote_types(q.dtype, torch.float32))


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, _: Tensor, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, scale = q.shape[2], q.shape[3] ** -0.5
    wide = torch.promote_types(q.dtype, torch.float32)
    mask, scratch = _diagonal_mask(q, rate), _Scratch(q, 3)
    gradients = heads_last(q), heads_last(k), heads_last(v)
    for group in _groups(q):
        g, queries, keys, values = (_in_one_piece(x, group) for x in (grad, q, k, v))
        queries = queries * scale
        delta = (g.to(wide) * out[group].flatten(0, 1)).sum(-1, keepdim=True)
        delta = delta.neg_().to(q.dtype)
        dq = torch.empty_like(queries)
        dk, dv = torch.zeros(2, *keys.shape, dtype=wide)
        for start in range(0, n, ROWS):
            stop = min(start + ROWS, n)
            rows, g_rows = queries[:, start:stop], g[:, start:stop]
            weights = _softmax(rows, keys, scratch(0, rows, n))
            ds = torch.mul(weights, delta[:, start:stop], out=scratch(1, rows, n))
            weights = _mask(weights, start, stop, mask, rate)
            seen = weights.shape[2]
            dp = scratch(2, rows, seen)
            torch.bmm(g_rows, values[:, :seen].mT, out=dp)
            ds[:, :, :seen].addcmul_(weights, dp)
            dq[:, start:stop] = torch.bmm(ds, keys)
            _add_product(dk, ds.mT, rows)
            _add_product(dv[:, :seen], weights.mT, g_rows)
        for target, found in zip(gradients, (dq.mul_(scale), dk, dv), strict=True):
            target[group] = found.unflatten(0, target[group].shape[:2])
    return gradients


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if total.dtype == a.dtype:
        total.baddbmm_(a, b)
    else:  # a sum of blocks in half precision would lose digits
        total += torch.bmm(a, b)


blocked_attention = define_attention(
    'blocked_attention', forward, backward, with_lse=False
)
