"""Between Eq. 2 and Eq. 1: the formula, both ends, gradients."""

import pytest
import torch

from illama_seg.layers.attention import (
    bidirectional_attention,
    causal_attention,
    renormalised_attention,
    soft_causal_attention,
)
from illama_seg.layers.attention_dispatch import available_implementations

SHAPE = 2, 3, 37, 16


def inputs(dtype=torch.float64, scale=1.0):
    torch.manual_seed(0)
    return [
        (scale * torch.randn(SHAPE, dtype=dtype)).requires_grad_() for _ in range(3)
    ]


def formula(q, k, v, a, b):
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
    past = torch.ones(q.shape[2], q.shape[2], dtype=q.dtype).tril()
    weights = weights * (past + a * (1 - past))
    return weights @ v / weights.sum(-1, keepdim=True) ** b


@pytest.mark.parametrize('a', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('b', [0.0, 0.5, 1.0])
def test_outputs_and_gradients_are_those_of_the_formula(a, b):
    results = []
    for attend in (renormalised_attention, formula):
        leaves = inputs()
        out = attend(*leaves, a, b)
        (out * torch.linspace(-1, 1, 16).double()).sum().backward()
        results.append([out, *(leaf.grad for leaf in leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ('ab', 'end'),
    [
        ((0.0, 1.0), causal_attention),
        ((1.0, 0.3), bidirectional_attention),
        ((0.2, 0.0), lambda q, k, v: soft_causal_attention(q, k, v, 0.2)),
    ],
)
def test_the_ends_are_the_other_masks(ab, end):
    q, k, v = inputs(scale=3.0)
    torch.testing.assert_close(renormalised_attention(q, k, v, *ab), end(q, k, v))


@pytest.mark.parametrize('impl', available_implementations('cpu', torch.float32, 24))
def test_every_implementation_gives_it(impl):
    q, k, v = inputs(torch.float32)
    found = renormalised_attention(q, k, v, 0.0, 1.0, impl)
    torch.testing.assert_close(found, causal_attention(q, k, v), rtol=1e-4, atol=1e-5)


def test_a_row_whose_past_has_no_share_is_finite():
    q, k, v = inputs(torch.float32)
    k = k.detach().clone()
    k[:, :, -1] = 100 * q[:, :, 0].detach()  # the last key takes all of the first row
    out = renormalised_attention(q, k, v, 0.0, 1.0)
    out.sum().backward()
    assert out.isfinite().all() and q.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_sharp_rows_do_not_vanish_in_half_precision(dtype):
    q, k, v = (x.detach() for x in inputs(scale=1.0))
    q = 6 * q
    found = renormalised_attention(*(x.to(dtype) for x in (q, k, v)), 0.0, 1.0)
    expected = causal_attention(*(x.to(dtype).double() for x in (q, k, v)))
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() < 4 * torch.finfo(dtype).eps * 3
    with torch.autocast('cpu', torch.bfloat16):
        again = renormalised_attention(*(x.float() for x in (q, k, v)), 0.0, 1.0)
    torch.testing.assert_close(
        again.double(), causal_attention(q, k, v), rtol=1e-4, atol=1e-4
    )
