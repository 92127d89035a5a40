import pytest
import torch
from hypothesis import given, strategies as st

from illama_seg.layers import apply_rotary, rotary_table


def rotate(x):
    """RoFormer's rotation with complex numbers, in float64."""
    num_tokens, head_dim = x.shape[-2:]
    frequencies = 10000.0 ** (-2 * torch.arange(head_dim // 2).double() / head_dim)
    angles = torch.outer(torch.arange(num_tokens).double(), frequencies)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize('num_tokens', [1, 2, 17, 300])
@pytest.mark.parametrize('head_dim', [2, 16, 64])
def test_rotation_is_a_product_of_complex_numbers(num_tokens, head_dim, relative_error):
    x = torch.randn(2, 3, num_tokens, head_dim)
    rotated = apply_rotary(x, rotary_table(num_tokens, head_dim))
    assert relative_error(rotated, rotate(x)) < 1e-5 * max(1, num_tokens / 100)


def test_table_holds_cosines_and_sines_in_float32():
    table = rotary_table(5, 8)
    assert table.shape == (5, 4, 2) and table.dtype == torch.float32
    angles = torch.tensor([[n * 10000 ** (-i / 4) for i in range(4)] for n in range(5)])
    torch.testing.assert_close(table[..., 0], angles.cos())
    torch.testing.assert_close(table[..., 1], angles.sin())


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_strides_that_are_no_complex_numbers_are_rotated_too(dtype):
    table = rotary_table(6, 8)
    base = torch.randn(6, 21).to(dtype)
    for x in (base[:, 1:9], base[:, ::2][:, :8], base[:, :8]):
        expected = apply_rotary(x.clone(memory_format=torch.contiguous_format), table)
        assert torch.equal(apply_rotary(x, table), expected)


def test_the_compiled_formula_is_the_eager_one():
    x, table = torch.randn(2, 3, 9, 8), rotary_table(9, 8)
    compiled = torch.compile(apply_rotary, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(x, table), apply_rotary(x, table))


@pytest.mark.parametrize('channel', range(8))
def test_pairs_are_adjacent_channels(channel):
    x = torch.zeros(4, 8)
    x[:, channel] = 1
    rotated = apply_rotary(x, rotary_table(4, 8))
    touched = rotated[1:].ne(0).all(0).nonzero().flatten().tolist()
    assert touched == [channel // 2 * 2, channel // 2 * 2 + 1]


def test_position_zero_is_not_turned():
    x = torch.randn(1, 5, 8)
    assert torch.equal(apply_rotary(x, rotary_table(5, 8))[:, 0], x[:, 0])


@given(
    first=st.integers(0, 60),
    second=st.integers(0, 60),
    shift=st.integers(1, 60),
    seed=st.integers(0, 2**16),
)
def test_products_depend_on_relative_positions_only(first, second, shift, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    table = rotary_table(128, 16).double()

    def product(m, n):
        turned = apply_rotary(torch.stack([query, key]), table[[m, n]])
        return (turned[0] * turned[1]).sum()

    near, far = product(first, second), product(first + shift, second + shift)
    torch.testing.assert_close(near, far, rtol=0, atol=1e-4)
    if first != second:  # and they do depend on them
        swapped = product(second, first)
        assert (near - swapped).abs() > 1e-9


def test_rotation_keeps_the_length_of_a_vector():
    x = torch.randn(2, 30, 32)
    rotated = apply_rotary(x, rotary_table(30, 32))
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_that_of_the_input(dtype):
    x = torch.randn(3, 8).to(dtype)
    rotated = apply_rotary(x, rotary_table(3, 8))
    assert rotated.dtype == dtype
    # One rounding, at the end: the products themselves are float32 or wider.
    expected = apply_rotary(x.double(), rotary_table(3, 8))
    tolerance = 0.51 * torch.finfo(dtype).eps if dtype == torch.bfloat16 else 1e-6
    error = (rotated.double() - expected).abs()
    assert (error <= tolerance * expected.abs().clamp(min=1e-3) * 2).all()


def test_longer_table_starts_with_the_shorter():
    assert torch.equal(rotary_table(50, 16)[:7], rotary_table(7, 16))


def test_a_table_made_in_inference_mode_may_be_trained_with():
    with torch.inference_mode():
        rotary_table(11, 6)
    x = torch.randn(11, 6, requires_grad=True)
    apply_rotary(x, rotary_table(11, 6)).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_odd_head_dim_is_refused():
    with pytest.raises(ValueError, match='even head_dim, got 7'):
        rotary_table(4, 7)
