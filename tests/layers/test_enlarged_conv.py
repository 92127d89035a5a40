"""The convolution of enlarged maps against its definition, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from illama_seg.layers import conv_of_enlarged, enlarged_conv

WIDTHS = st.integers(1, 9)


def definition(maps, weight, bias, align_corners):
    size = maps[0].shape[-2:]
    enlarged = [
        F.interpolate(x, size, mode='bilinear', align_corners=align_corners)
        for x in maps[1:]
    ]
    return F.conv2d(torch.cat([maps[0], *enlarged], 1), weight, bias, padding=1)


def case(sizes, channels=(3, 2, 4), out=5, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    channels = channels[: len(sizes)]
    maps = [random(batch, c, *s) for c, s in zip(channels, sizes, strict=True)]
    return maps, random(out, sum(channels), 3, 3), random(out)


def assert_equal(maps, weight, bias, align_corners=False, tolerance=1e-10):
    """Output and all gradients, relative to the norm of each."""
    leaves = [*maps, weight, bias]
    found, wanted = (
        function(maps, weight, bias, align_corners)
        for function in (conv_of_enlarged, definition)
    )
    assert found.shape == wanted.shape
    grad = torch.randn(found.shape, dtype=found.dtype)
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(wanted, leaves, grad),
        strict=True,
    )
    for ours, exact in pairs:
        assert (ours - exact).norm() <= tolerance * exact.norm()


@settings(max_examples=60, deadline=None)
@given(
    fine=st.tuples(WIDTHS, WIDTHS),
    coarse=st.lists(st.tuples(WIDTHS, WIDTHS), max_size=2),
    align_corners=st.booleans(),
)
def test_any_sizes_give_the_definition(fine, coarse, align_corners):
    assert_equal(*case([fine, *coarse]), align_corners)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('block', [4, 7, 1000])
def test_blocks_of_any_length_give_the_definition(block, align_corners, monkeypatch):
    monkeypatch.setattr(enlarged_conv, 'BLOCK', block)
    assert_equal(*case([(23, 41), (12, 21), (3, 5)]), align_corners)


def test_float32_is_as_exact_as_the_definition():
    maps, weight, bias = case([(24, 32), (12, 16), (3, 4)], dtype=torch.float32)
    assert_equal(maps, weight, bias, tolerance=1e-5)


def test_half_precision_is_as_near_as_that_of_the_definition():
    maps, weight, bias = case([(24, 32), (12, 16), (3, 4)])
    exact = definition(maps, weight, bias, False)
    half = [x.bfloat16() for x in maps], weight.bfloat16(), bias.bfloat16()
    ours, theirs = (
        (function(*half, False) - exact).norm() / exact.norm()
        for function in (conv_of_enlarged, definition)
    )
    assert ours < max(2 * theirs, 0.01)


def test_maps_in_channels_last_give_the_definition():
    maps, weight, bias = case([(24, 32), (12, 16), (6, 8)])
    maps = [
        x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in maps
    ]
    assert_equal(maps, weight, bias)


def test_nothing_of_the_size_of_an_enlarged_map_is_kept_for_the_gradient():
    maps, weight, bias = case([(32, 32), (16, 16), (8, 8)], channels=(4, 64, 64), out=2)
    sizes = {}

    def pack(x):
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        conv_of_enlarged(maps, weight, bias)
    enlarged = 2 * 128 * 32 * 32 * 8
    assert sum(sizes.values()) < 0.6 * enlarged
