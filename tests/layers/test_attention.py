"""Every implementation against the formula in float64, and what tools they take.

The Triton kernels run here in Triton's interpreter: the same tests, in a process of
their own, since the interpreter is chosen when the kernels are defined.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from illama_seg.layers.attention import (
    attention_map,
    causal_attention,
    soft_causal_attention,
)
from illama_seg.layers.attention_dispatch import (
    IMPLEMENTATIONS,
    available_implementations,
)

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
NAMES = ['triton'] if INTERPRETED else ['reference', 'blocked', 'flash']
LENGTHS = (1, 2, 17, 133) if INTERPRETED else (1, 2, 17, 197, 1025)
RATES = (0.0, 0.25, 1.0)
every_implementation = pytest.mark.parametrize('impl', NAMES)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
in_process = pytest.mark.skipif(INTERPRETED, reason='not about the kernels')


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def formula(q, k, v, rate):
    """Eq. 1-2 in float64 on the CPU: the softmax of all scores, then the mask."""
    q, k, v = (x.cpu().double() for x in (q, k, v))
    n, d = q.shape[-2:]
    mask = torch.ones(n, n, dtype=torch.float64)
    mask[torch.triu_indices(n, n, 1).unbind(0)] = rate
    return (torch.softmax(q @ k.mT / d**0.5, -1) * mask) @ v


def packed(n, d, dtype=torch.float32, batch=1, heads=2, device='cpu'):
    """A fused projection, (B, N, 3, h, d)."""
    return torch.randn(batch, n, 3, heads, d).to(device, dtype)


def split(qkv):
    """Views of it, (B, h, N, d) each: non-contiguous, as in the model."""
    return qkv.permute(2, 0, 3, 1, 4).unbind(0)


def output_and_gradient(function, qkv, grad):
    leaf = qkv.detach().clone().requires_grad_()
    out = function(*split(leaf))
    out.backward(grad.to(out))
    return out.detach().double().cpu(), leaf.grad.double().cpu()


def assert_exact(impl, qkv, rate, tolerance):
    """Output and all three gradients within `tolerance` of each one's norm."""
    grad = torch.randn(split(qkv)[0].shape)
    found = output_and_gradient(
        lambda *x: soft_causal_attention(*x, rate, impl), qkv, grad
    )
    wanted = output_and_gradient(
        lambda *x: formula(*x, rate), qkv.double().cpu(), grad.double()
    )
    parts = [(found[0], wanted[0])]
    parts += zip(found[1].unbind(2), wanted[1].unbind(2), strict=True)
    for ours, exact in parts:
        assert torch.isfinite(ours).all()
        # Terms of the size of `grad` cancel: wholly in q's gradient at one token.
        floor = grad.norm() * (0.1 if exact.any() else 1)
        assert (ours - exact).norm() <= tolerance * (exact.norm() + floor)


@every_implementation
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('n', LENGTHS)
def test_output_and_gradients_are_the_formula_at_any_length(impl, n, rate):
    assert_exact(impl, packed(n, 16), rate, 2e-6)


@every_implementation
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('d', (16, 64, 96))
def test_output_and_gradients_are_the_formula_at_any_head_dim(impl, d, rate):
    assert_exact(impl, packed(37, d, batch=2), rate, 2e-6)


@every_implementation
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('n', [1, 7, 8, 21])
def test_the_map_of_an_implementation_is_its_weights(impl, n, rate):
    q, k, v = split(packed(n, 8, batch=2))
    found = attention_map(lambda *x: soft_causal_attention(*x, rate, impl), q, k)
    assert found.shape == (2, 2, n, n)
    expected = formula(q, k, torch.eye(n).expand(2, 2, n, n), rate)
    torch.testing.assert_close(found.double().cpu(), expected, rtol=1e-5, atol=1e-6)
    mixed = soft_causal_attention(q, k, v, rate, impl)
    torch.testing.assert_close(found @ v, mixed, rtol=1e-5, atol=1e-5)


@every_implementation
def test_the_rate_may_change_between_calls(impl):
    qkv = packed(17, 16)
    rate = torch.tensor(0.0)
    for value in (0.0, 0.7, 1.0, 0.3, 0.0):
        assert_exact(impl, qkv, value, 2e-6)
        rate.fill_(value)
        out = soft_causal_attention(*split(qkv), rate, impl)
        torch.testing.assert_close(
            out.double(), formula(*split(qkv), rate.item()), atol=2e-6, rtol=1e-5
        )


@every_implementation
@pytest.mark.parametrize('rate', RATES)
def test_inputs_may_have_any_strides(impl, rate):
    base = torch.randn(3, 2, 3, 16, 70)  # channels before tokens, tokens with gaps
    leaves = base.mT[..., ::2, :].requires_grad_()
    q, k, v = leaves.unbind(0)
    grad = torch.randn(2, 3, 16, 35).mT
    out = soft_causal_attention(q, k, v, rate, impl)
    exact = formula(q, k, v, rate)
    torch.testing.assert_close(out.double(), exact, atol=2e-6, rtol=0)
    found = torch.autograd.grad(out, leaves, grad)
    wanted = torch.autograd.grad(exact, leaves, grad.double())
    torch.testing.assert_close(found, wanted, atol=4e-6, rtol=0)


@pytest.mark.parametrize('impl', [name for name in NAMES if name != 'reference'])
@pytest.mark.parametrize('rate', RATES)
def test_heads_merge_without_a_copy(impl, rate):
    q, k, v = split(packed(17, 16, batch=2))
    out = soft_causal_attention(q, k, v, rate, impl)
    assert out.transpose(1, 2).is_contiguous()


@every_implementation
@pytest.mark.parametrize('shape', [(0, 2, 5, 16), (2, 2, 0, 16)])
def test_nothing_in_gives_nothing_out(impl, shape):
    x = torch.randn(shape, requires_grad=True)
    out = soft_causal_attention(x, x, x, 0.25, impl)
    out.sum().backward()
    assert out.shape == x.grad.shape == shape


@every_implementation
@pytest.mark.parametrize('rate', RATES)
def test_extreme_logits_stay_finite(impl, rate):
    qkv = packed(33, 16)
    scores = torch.einsum('bnhd,bmhd->bhnm', qkv[:, :, 0], qkv[:, :, 1]) / 4
    qkv[:, :, 0] *= 80 / scores.abs().max()
    # Rounding a score of 80 alone costs 80 * 2**-24 of its weight.
    assert_exact(impl, qkv, rate, 1e-4)


@pytest.mark.parametrize('impl', [] if INTERPRETED else NAMES)
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_within_its_own_rounding(impl, rate, dtype):
    qkv = packed(197, 64, dtype)
    if impl in ('reference', 'blocked'):  # scores are rounded, as the authors' are
        assert_exact(impl, qkv, rate, 3 * torch.finfo(dtype).eps)
    else:
        assert_exact(impl, qkv, rate, torch.finfo(dtype).eps)


@in_process
@pytest.mark.parametrize('spread', (1, 3, 6))
def test_blocked_rounds_no_more_than_the_formula_in_the_same_type(spread):
    q, k, v = split(packed(333, 64, heads=4))
    q = q * spread
    exact = formula(*(x.bfloat16() for x in (q, k, v)), 0.0)
    error = {}
    for impl in ('blocked', 'reference'):
        with torch.autocast('cpu', torch.bfloat16):
            out = soft_causal_attention(q, k, v, 0.0, impl)
        error[impl] = (out.double() - exact).norm()
    assert error['blocked'] <= 1.1 * error['reference']


@pytest.mark.parametrize('impl', [] if INTERPRETED else NAMES)
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('n', (1, 5))
def test_gradcheck_passes(impl, rate, n):
    qkv = [x.requires_grad_() for x in torch.randn(3, 1, 2, n, 16).double().unbind(0)]
    assert torch.autograd.gradcheck(
        lambda *x: soft_causal_attention(*x, rate, impl), qkv, fast_mode=True
    )


@pytest.mark.parametrize('impl', [name for name in NAMES if name != 'reference'])
def test_the_operators_are_well_formed(impl):
    op = getattr(torch.ops.illama_seg, f'{impl}_attention').default
    backward = getattr(torch.ops.illama_seg, f'{impl}_attention_backward').default
    rate = torch.tensor(0.25)
    for n in (1, 5):
        q, k, v = split(packed(n, 16))
        torch.library.opcheck(op, (q, k, v, rate))
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        torch.library.opcheck(op, (*leaves, rate))
        out, lse = op(q, k, v, rate)
        torch.library.opcheck(backward, (q, q, k, v, out, lse, rate))


@pytest.mark.parametrize('impl', [name for name in NAMES if name != 'reference'])
def test_a_second_derivative_is_refused_by_name_of_the_way_out(impl):
    x = torch.randn(1, 2, 5, 16, requires_grad=True)
    out = soft_causal_attention(x, x, x, 0.0, impl)
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="impl='reference'"):
        grad.sum().backward()


@every_implementation
@settings(max_examples=5 if INTERPRETED else 40, deadline=None)
@given(
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    n=st.integers(1, 70 if INTERPRETED else 300),
    d=st.sampled_from([16, 24, 32, 40, 64]),
    rate=st.floats(0, 1, width=32),
)
def test_any_shape_and_rate_gives_the_formula(impl, batch, heads, n, d, rate):
    assert_exact(impl, packed(n, d, batch=batch, heads=heads), rate, 3e-6)


@every_implementation
def test_soft_rows_see_later_tokens_only_through_the_denominator(impl):
    original = split(packed(21, 16))
    changed = [x.clone() for x in original]
    for x in changed:
        x[:, :, 15] = torch.randn(16)
    numerators = []
    for q, k, v in (original, changed):
        out = soft_causal_attention(q, k, v, 0.0, impl).double()
        denominator = torch.logsumexp(q.double() @ k.double().mT / 4, -1).exp()
        numerators.append((out, out * denominator[..., None]))
    (before, kept), (after, still) = numerators
    assert ((before - after)[:, :, :15].abs().amax(-1) > 1e-5).all()
    torch.testing.assert_close(kept[:, :, :15], still[:, :, :15], atol=0, rtol=1e-4)


@in_process
@pytest.mark.parametrize('n', (17, 197, 1025))
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_strict_rows_do_not_see_later_tokens_bit_for_bit(n, dtype):
    q, k, v = split(packed(n, 16, dtype))
    before = causal_attention(q, k, v)
    changed = n * 2 // 3
    for x in (q, k, v):
        x[:, :, changed] = torch.randn(16).to(dtype)
    after = causal_attention(q, k, v)
    assert torch.equal(before[:, :, :changed], after[:, :, :changed])
    assert not torch.equal(before[:, :, changed:], after[:, :, changed:])


@in_process
@pytest.mark.parametrize('rate', (-0.1, 1.1, float('nan')))
def test_a_rate_outside_zero_to_one_is_refused(rate):
    x = torch.randn(1, 1, 3, 16)
    for impl in IMPLEMENTATIONS:
        for given_rate in (rate, torch.tensor(rate)):
            with pytest.raises(ValueError, match=r'\[0, 1\]'):
                soft_causal_attention(x, x, x, given_rate, impl)


@in_process
def test_an_unknown_implementation_is_refused_with_the_known_names():
    x = torch.randn(1, 1, 3, 16)
    with pytest.raises(ValueError, match='auto, reference, blocked, flash'):
        soft_causal_attention(x, x, x, 0.0, 'fast')


@in_process
def test_unequal_shapes_are_refused():
    x = torch.randn(1, 1, 3, 16)
    with pytest.raises(ValueError, match='one shape'):
        soft_causal_attention(x, x[:, :, :2], x, 0.0)


@in_process
def test_the_cpu_has_a_fast_path_in_every_float_type():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        names = available_implementations('cpu', dtype, 64)
        assert names == ('blocked', 'flash', 'reference')


@in_process
def test_compiled_once_for_all_rates():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(soft_causal_attention, fullgraph=True, backend=counter)
    qkv = packed(17, 16)
    for value in (0.0, 0.25, 1.0, 0.6):
        rate = torch.tensor(value)
        grad = torch.randn(1, 2, 17, 16)
        ours = output_and_gradient(lambda *x: compiled(*x, rate), qkv, grad)  # noqa: B023
        eager = output_and_gradient(
            lambda *x: soft_causal_attention(*x, rate),  # noqa: B023
            qkv,
            grad,
        )
        assert all(torch.equal(a, b) for a, b in zip(ours, eager, strict=True))
    assert counter.frame_count == 1


@in_process
def test_compiled_for_dynamic_lengths_with_one_recompilation():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(soft_causal_attention, fullgraph=True, backend=counter)
    for n in (17, 33, 50):
        q, k, v = split(packed(n, 16))
        out = compiled(q, k, v, torch.tensor(0.25))
        assert torch.equal(out, soft_causal_attention(q, k, v, 0.25))
    assert counter.frame_count <= 2


@in_process
@pytest.mark.parametrize('strict', (False, True))
@pytest.mark.parametrize('impl', ('auto', 'reference'))
def test_exported_programs_give_the_same_output(strict, impl):
    class Attention(torch.nn.Module):
        def forward(self, q, k, v):
            return soft_causal_attention(q, k, v, 0.25, impl)

    q, k, v = split(packed(17, 16))
    program = torch.export.export(Attention(), (q, k, v), strict=strict)
    torch.testing.assert_close(
        program.module()(q, k, v), soft_causal_attention(q, k, v, 0.25, impl)
    )


@every_implementation
def test_checkpointing_gives_the_same_gradients(impl):
    qkv = packed(17, 16)
    grad = torch.randn(1, 2, 17, 16)

    def attend(q, k, v):
        return soft_causal_attention(q, k, v, 0.25, impl)

    plain = output_and_gradient(attend, qkv, grad)
    again = output_and_gradient(
        lambda *x: checkpoint(attend, *x, use_reentrant=False), qkv, grad
    )
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


@every_implementation
def test_inference_mode_gives_the_same_output(impl):
    q, k, v = split(packed(17, 16))
    with torch.inference_mode():
        inside = soft_causal_attention(q, k, v, 0.25, impl)
    assert torch.equal(inside, soft_causal_attention(q, k, v, 0.25, impl))


@in_process
@pytest.mark.parametrize('impl', ('auto', 'reference'))
def test_autocast_takes_float32_queries(impl):
    q, k, v = (x.clone().requires_grad_() for x in split(packed(17, 16)))
    with torch.autocast('cpu', torch.bfloat16):
        out = soft_causal_attention(q, k, v.bfloat16(), 0.25, impl)
        strict = causal_attention(q, k, v.bfloat16())
    assert out.dtype == strict.dtype == torch.bfloat16
    out.sum().backward()
    exact = formula(q, k, v, 0.25)
    assert (out.double() - exact).norm() < 1e-2 * exact.norm()
    assert q.grad.dtype == torch.float32


@in_process
@pytest.mark.slow
def test_the_triton_kernels_pass_these_tests_in_the_interpreter():
    pytest.importorskip('triton')
    golden = Path(__file__).parents[1] / 'backbones/test_illama.py'
    names = ('equals_the_released_code', 'gradients_equal_those_of_the_released_code')
    tests = [__file__, *(f'{golden}::test_{name}' for name in names)]
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *tests],
        env={**os.environ, 'TRITON_INTERPRET': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]


CUDA_DTYPES = {torch.float32: 5e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}


@needs_cuda
@pytest.mark.parametrize('dtype', CUDA_DTYPES)
def test_cuda_has_a_fast_path(dtype):
    names = available_implementations('cuda', dtype, 64)
    assert {'flash', 'triton', 'reference'} <= set(names)
    assert names[0] != 'reference'


@needs_cuda
@pytest.mark.parametrize('dtype', CUDA_DTYPES)
@pytest.mark.parametrize('impl', ('reference', 'flash', 'triton'))
@pytest.mark.parametrize('rate', RATES)
@pytest.mark.parametrize('n, d', [(1, 64), (17, 64), (197, 64), (1025, 64), (130, 96)])
def test_cuda_kernels_are_the_formula(impl, dtype, rate, n, d):
    if impl == 'triton' and dtype != torch.bfloat16 and d != 64:
        pytest.skip('compiling every kind of kernel would take minutes')
    if impl not in available_implementations('cuda', dtype, d):
        pytest.skip(f'no {impl} for {dtype} here')
    if impl == 'reference' and dtype != torch.float32:
        tolerance = 3 * CUDA_DTYPES[dtype]
    else:
        tolerance = CUDA_DTYPES[dtype]
    torch.backends.cuda.matmul.allow_tf32 = False
    assert_exact(impl, packed(n, d, dtype, device='cuda'), rate, tolerance)


@needs_cuda
@pytest.mark.parametrize('impl', ('flash', 'triton'))
def test_cuda_operators_are_well_formed(impl):
    op = getattr(torch.ops.illama_seg, f'{impl}_attention').default
    q, k, v = split(packed(37, 64, torch.bfloat16, device='cuda'))
    leaves = tuple(x.clone().requires_grad_() for x in (q, k, v))
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    torch.library.opcheck(op, (*leaves, torch.tensor(0.25)), test_utils=checks)


@needs_cuda
@pytest.mark.parametrize('impl', ('flash', 'triton'))
def test_cuda_extreme_logits_stay_finite(impl):
    x = torch.full((1, 2, 69, 64), 25.0, device='cuda', dtype=torch.bfloat16)
    x[:, :, ::2] *= -1
    x.requires_grad_()
    out = soft_causal_attention(x, x, x, 0.0, impl)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(x.grad).all()
