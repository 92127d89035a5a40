"""An exact attention kernel as a torch operator, with its gradient and refusals.

A kernel is two plain functions, forward and backward. As operators torch.compile
and torch.export take them whole, and the rate, a tensor on the CPU, may change
without a recompilation. Shape letters: see attention.py.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from illama_seg.errors import UserError

Forward = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]


def heads_last(like: Tensor) -> Tensor:
    """An empty (B, h, N, d) stored as (B, N, h, d): merging the heads is a view."""
    b, h, n, d = like.shape
    return like.new_empty(b, n, h, d).transpose(1, 2)


def _rows_in_one_piece(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Make the last stride 1; torch's CPU kernel does not check it, and misreads."""
    return tuple(x if x.stride(-1) == 1 else x.contiguous() for x in tensors)


def rate_value(rate: float | Tensor) -> float:
    value = float(rate)
    if not 0 <= value <= 1:
        raise UserError(f'soft_mask_rate must lie in [0, 1], got {value}')
    return value


def _define(name: str, schema: str, function: Callable, fake: Callable):
    op = torch.library.custom_op(
        f'illama_seg::{name}', function, mutates_args=(), schema=schema
    )
    op.register_fake(fake)
    return op


def define_attention(
    name: str, forward: Forward, backward: Backward, with_lse: bool = True
):
    """Register `illama_seg::{name}`: (q, k, v, rate) -> output and log-sum-exp.

    Args:
        forward: (q, k, v, rate as a float) -> out (B, h, N, d) and the natural
            log-sum-exp (B, h, N) of every row over all its scores.
        backward: (grad, q, k, v, out, lse, rate) -> the three gradients.
        with_lse: False for kernels whose backward needs no log-sum-exp: it is empty.
    """

    def fake_forward(q, k, v, rate):
        lse_dtype = torch.promote_types(q.dtype, torch.float32)
        lse_shape = q.shape[:-1] if with_lse else (0,)
        return heads_last(q), q.new_empty(lse_shape, dtype=lse_dtype)

    def run_forward(q, k, v, rate):
        value = rate_value(rate)
        if not q.numel():
            return fake_forward(q, k, v, rate)
        q, k, v = _rows_in_one_piece(q, k, v)
        out, lse = forward(q, k, v, value)
        return out, lse.contiguous()

    def fake_backward(grad, q, k, v, out, lse, rate):
        return heads_last(q), heads_last(k), heads_last(v)

    def run_backward(grad, q, k, v, out, lse, rate):
        if not q.numel():
            return fake_backward(grad, q, k, v, out, lse, rate)
        tensors = _rows_in_one_piece(grad, q, k, v, out)
        return backward(*tensors, lse, rate_value(rate))

    op = _define(
        name,
        '(Tensor q, Tensor k, Tensor v, Tensor rate) -> (Tensor, Tensor)',
        run_forward,
        fake_forward,
    )
    backward_op = _define(
        f'{name}_backward',
        '(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, '
        'Tensor rate) -> (Tensor, Tensor, Tensor)',
        run_backward,
        fake_backward,
    )

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, *output)
        ctx.mark_non_differentiable(output[1])

    def differentiate(ctx, grad, grad_lse):
        q, k, v, rate, out, lse = ctx.saved_tensors
        return *backward_op(grad, q, k, v, out, lse, rate), None

    def refuse(ctx, *grads):
        raise NotImplementedError(
            f"the '{name}' kernel has no second derivative; use impl='reference'"
        )

    op.register_autograd(differentiate, setup_context=setup_context)
    backward_op.register_autograd(refuse)
    return op
