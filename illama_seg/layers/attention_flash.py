"""Exact soft-masked attention from torch's own flash kernels, in O(N) memory.

The past of a row, j <= i, is ordinary causal attention. Its future, j > i, is
causal attention too, of the sequence read backwards and shifted by one, so the two
together cost what one full call costs, with (O_p, L_p) and (O_u, L_u) the outputs
and log-sum-exps of past and future:

    L = logaddexp(L_p, L_u)      O = exp(L_p - L) O_p + a exp(L_u - L) O_u

The same holds backwards: given O and L of the whole row, a causal backward call
returns P (S g.v - delta) on its side of the diagonal. Shape letters: attention.py.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from illama_seg.layers.attention_op import define_attention, heads_last

aten = torch.ops.aten


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    if q.device.type == 'cpu':
        return aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, is_causal=causal
        )
    if q.dtype == torch.float32:
        out, lse = aten._scaled_dot_product_efficient_attention(
            q, k, v, None, True, is_causal=causal
        )[:2]
        return out, lse[..., : q.shape[2]]
    return aten._scaled_dot_product_flash_attention(q, k, v, is_causal=causal)[:2]


def _attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal
) -> tuple[Tensor, Tensor, Tensor]:
    if q.device.type == 'cpu':
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal
        )
    n = q.shape[2]
    if q.dtype == torch.float32:
        # This kernel reads log-sum-exps in whole blocks of 32 rows.
        lse = pad(lse, (0, -n % 32), value=float('inf'))
        seed = torch.zeros((), dtype=torch.int64, device=q.device)
        return aten._scaled_dot_product_efficient_attention_backward(
            *(grad, q, k, v, None, out, lse, seed, seed, 0.0),
            *([True, True, True, False], causal),
        )[:3]
    state = torch.zeros(2, dtype=torch.uint64, device=q.device)
    return aten._scaled_dot_product_flash_attention_backward(
        *(grad, q, k, v, out, lse.contiguous(), None, None),
        *(n, n, 0.0, causal, state, state[0]),
    )


def _heads_last(x: Tensor) -> Tensor:
    """x itself where it is already stored as (B, N, h, d), else a copy."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _future_queries(x: Tensor) -> Tensor:
    """Every row that has a future, last first."""
    return x[:, :, :-1].flip(2)


def _future_keys(x: Tensor) -> Tensor:
    """Every row that is in some future, last first."""
    return x[:, :, 1:].flip(2)


def forward(q: Tensor, k: Tensor, v: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    bidirectional = rate == 1 and q.shape[2] > 1
    past, past_lse = _attend(q, k, v, causal=not bidirectional)
    if bidirectional or q.shape[2] == 1:
        return _heads_last(past), past_lse
    keys = _future_keys(k)
    values = _future_keys(v) if rate else keys  # at rate 0 only L_u is used
    future, future_lse = _attend(_future_queries(q), keys, values, causal=True)
    future_lse = future_lse.flip(2)
    lse = past_lse.clone()
    lse[:, :, :-1] = torch.logaddexp(past_lse[:, :, :-1], future_lse)
    out = heads_last(q)
    torch.mul(past, (past_lse - lse).exp_().to(q.dtype)[..., None], out=out)
    if rate:
        weight = (future_lse - lse[:, :, :-1]).exp_().mul_(rate).to(q.dtype)
        out[:, :, :-1].addcmul_(future.flip(2), weight[..., None])
    return out, lse


def backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, rate: float
) -> tuple[Tensor, Tensor, Tensor]:
    bidirectional = rate == 1 and q.shape[2] > 1
    past = _attend_backward(grad, q, k, v, out, lse, causal=not bidirectional)
    dq, dk, dv = (_heads_last(x) for x in past)
    if bidirectional or q.shape[2] == 1:
        return dq, dk, dv
    future = _attend_backward(
        _future_queries(grad),
        _future_queries(q),
        _future_keys(k),
        _future_keys(v).mul_(rate),
        _future_queries(out),
        _future_queries(lse),
        causal=True,
    )
    dq[:, :, :-1] += future[0].flip(2)
    dk[:, :, 1:] += future[1].flip(2)
    if rate:
        dv[:, :, 1:].add_(future[2].flip(2), alpha=rate)
    return dq, dk, dv


flash_attention = define_attention('flash_attention', forward, backward)
