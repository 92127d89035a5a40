import copy
import os
import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given, strategies as st

from illama_seg.layers import MASKS
from illama_seg.quantization import Int8Linear, int8, int8_attention, to_int8


@given(st.lists(st.floats(-60, 60, width=32), min_size=1, max_size=20))
def test_integers_are_rounded_to_even_and_clipped(values):
    x = torch.tensor(values)
    expected = [min(max(round(value / 0.25), -128), 127) for value in values]
    signed, unsigned = to_int8(x, 0.25), to_int8(x, 0.25, 128)
    assert (signed.dtype, unsigned.dtype) == (torch.int8, torch.uint8)
    assert signed.tolist() == expected
    assert unsigned.tolist() == [value + 128 for value in expected]


def random_linear(size, out, bias=True):
    linear = Int8Linear(size, out, bias)
    linear.weight.random_(-128, 128)
    linear.weight_step.uniform_(1e-3, 1e-2)
    linear.step.fill_(0.03)
    if bias:
        linear.bias.normal_()
    return linear


def by_brute_force(linear, x):
    """The sums in 64-bit integers, one product after the other."""
    rows = to_int8(x, linear.step.item()).flatten(0, -2).long()
    weight = linear.weight.long()
    sums = [[sum((r * w).tolist()) for w in weight] for r in rows]
    scale = linear.step.double() * linear.weight_step.double()
    out = torch.tensor(sums, dtype=torch.float64) * scale
    out = out if linear.bias is None else out + linear.bias
    return out.view(*x.shape[:-1], -1)


@given(
    st.tuples(*[st.integers(1, 9)] * 2, st.integers(1, 70), st.integers(1, 40)),
    st.booleans(),
)
def test_a_linear_layer_is_the_integer_product(sizes, bias):
    b, n, size, out = sizes
    linear, x = random_linear(size, out, bias), torch.randn(b, n, size)
    expected = by_brute_force(linear, x)
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('x', 'weight'), [(9e9, 127), (-9e9, -128), (9e9, -128)])
def test_sums_of_the_largest_integers_do_not_saturate(x, weight):
    linear = random_linear(2048, 16, bias=False)
    linear.weight.fill_(weight)
    linear.weight_step.fill_(1)
    linear.step.fill_(1)
    found = linear(torch.full((2, 2048), x))
    assert (found == 2048 * weight * (127 if x > 0 else -128)).all()


def test_in_autocast_the_output_is_bfloat16():
    linear, x = random_linear(24, 8), torch.randn(3, 24)
    with torch.autocast('cpu', torch.bfloat16):
        found = linear(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), linear(x), rtol=1e-2, atol=1e-2)


def test_other_weights_and_a_copy_are_used_as_they_are_now():
    linear, other, x = random_linear(24, 8), random_linear(24, 8), torch.randn(3, 24)
    first = linear(x)
    twin = copy.deepcopy(linear)
    linear.load_state_dict(other.state_dict())
    assert linear(x).equal(other(x)) and not linear(x).equal(first)
    assert twin(x).equal(first)
    twin.weight.zero_()
    assert twin(x).equal(twin.bias.expand(3, -1))


def test_another_device_is_refused():
    with pytest.raises(ValueError, match='on a CPU, the input is on meta'):
        random_linear(4, 4)(torch.zeros(1, 4, device='meta'))


# Attention

STEPS = 0.03, 0.02, 0.025, 1 / 255


def attention_by_brute_force(q, k, v, steps, mask, rate):
    q_step, k_step, v_step, p_step = steps
    n, d = q.shape[2:]
    q8, k8, v8 = (
        (x / s).round().clamp(-128, 127).long()
        for x, s in zip((q, k, v), steps[:3], strict=True)
    )
    scores = (q8 @ k8.transpose(-2, -1)).float() * (q_step * k_step * d**-0.5)
    visible = torch.ones(n, n).tril()
    if mask == 'modified':
        visible[0] = 1
    if mask in ('strict', 'modified'):
        scores[..., visible == 0] = float('-inf')
    p = scores.softmax(-1)
    if mask == 'soft':
        p = p * torch.where(visible == 1, 1.0, rate)
    p8 = (p / p_step).round().clamp(0, 255).long()
    return (p8 @ v8).float() * (p_step * v_step)


@pytest.mark.parametrize('blocks', [(256, 1 << 20), (4, 1 << 20), (4, 200)])
@pytest.mark.parametrize('rate', [0.0, 0.25, 1.0])
@pytest.mark.parametrize('mask', MASKS)
def test_both_products_of_the_attention_are_of_integers(
    mask, rate, blocks, monkeypatch
):
    if rate and mask != 'soft':
        pytest.skip('has no rate')
    monkeypatch.setattr(int8, 'ROWS', blocks[0])
    monkeypatch.setattr(int8, 'CACHE', blocks[1])
    q, k, v = torch.randn(3, 2, 3, 11, 8)
    found = int8_attention(q, k, v, STEPS, mask, rate)
    expected = attention_by_brute_force(q, k, v, STEPS, mask, rate)
    # A probability half-way between two integers may go either way.
    one = STEPS[3] * STEPS[2] * 128
    assert (found - expected).abs().max() <= one
    assert torch.isclose(found, expected, atol=1e-5).double().mean() > 0.95


def test_probabilities_beyond_the_largest_integer_are_clipped():
    q, k, v = torch.randn(3, 1, 1, 5, 8)
    steps = 0.03, 0.02, 0.025, 1 / 2550
    found = int8_attention(q, k, v, steps, 'strict', 0)
    expected = attention_by_brute_force(q, k, v, steps, 'strict', 0)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)
    assert torch.isclose(found[0, 0, 0], expected[0, 0, 0]).all()  # p = 1


def test_every_product_goes_through_torchs_integers(monkeypatch):
    monkeypatch.setattr(int8, 'wrong_products', lambda: '')
    seen = []
    real = torch._int_mm

    def product(a, b, out):
        seen.append((a.dtype, b.dtype, out.dtype))
        return real(a, b, out=out)

    monkeypatch.setattr(torch, '_int_mm', product)
    int8_attention(*torch.randn(3, 2, 3, 5, 8), STEPS, 'soft', 0.0)
    assert seen == [(torch.int8, torch.int8, torch.int32)] * (2 * 2 * 3)


# A processor whose products lose digits


@pytest.mark.parametrize('bias', [True, False])
def test_where_products_lose_digits_the_layer_is_exact_without_them(monkeypatch, bias):
    monkeypatch.setattr(int8, 'wrong_products', lambda: 'they saturate')
    monkeypatch.setattr(torch.ops.onednn, 'qlinear_pointwise', None)
    linear, x = random_linear(70, 9, bias), torch.randn(2, 3, 70)
    expected = by_brute_force(linear, x)
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-5, atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16


def test_where_products_lose_digits_the_attention_is_the_same_without_them(monkeypatch):
    q, k, v = torch.randn(3, 2, 3, 37, 16)
    monkeypatch.setattr(int8, 'wrong_products', lambda: 'they saturate')
    monkeypatch.setattr(torch, '_int_mm', None)
    found = int8_attention(q, k, v, STEPS, 'soft', 0.25)

    def product(a, b, out):
        out.copy_((a.long()[:, :, None] * b.long()[None]).sum(1))

    monkeypatch.setattr(int8, 'wrong_products', lambda: '')
    monkeypatch.setattr(torch, '_int_mm', product)
    assert found.equal(int8_attention(q, k, v, STEPS, 'soft', 0.25))


def test_the_self_test_finds_sums_of_pairs_that_saturate_at_16_bits(monkeypatch):
    def saturating(a, b):
        pairs = a.int()[:, :, None] * b.int()[None]
        pairs = pairs.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1)
        return pairs.sum(1)

    monkeypatch.setattr(torch, '_int_mm', saturating)
    assert 'products of' in int8.wrong_products.__wrapped__()


@pytest.mark.skipif(platform.machine() != 'x86_64', reason="needs x86's instructions")
def test_without_vnni_no_sum_is_wrong():
    code = """
import torch
from illama_seg.quantization import Int8Linear, int8
assert int8.wrong_products(), 'oneDNN took another instruction set'
linear = Int8Linear(2048, 16, False)
linear.weight.fill_(127)
assert (linear(torch.full((2, 2048), 9e9)) == 2048 * 127 * 127).all()
"""
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA='AVX2')
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
