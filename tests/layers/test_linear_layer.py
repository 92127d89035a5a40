"""Linear layers: both ways are the definition, and the faster one is taken."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

from illama_seg.layers import Linear, automatic_product, linear_layer as module
from illama_seg.machine import choices


@pytest.fixture(autouse=True)
def _auto(file, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, 'auto')


@pytest.fixture
def timed(monkeypatch):
    """Let the measurement find these seconds; returns the cases that were timed."""

    def let(**seconds):
        cases = []
        monkeypatch.setattr(
            module, '_times', lambda training: cases.append(training) or dict(seconds)
        )
        return cases

    return let


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    features=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    bias=st.booleans(),
)
def test_a_convolution_of_tokens_is_the_linear_layer(shape, features, bias):
    wide, high = features
    x = torch.randn(*shape, wide, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(high, wide, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(high, dtype=torch.float64, requires_grad=True)
    found = module.by_convolution(x, weight, offset if bias else None)
    expected = torch.einsum('...k,mk->...m', x, weight) + (offset if bias else 0)
    leaves = (x, weight, *[offset] * bias)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    for ours, exact in zip(
        torch.autograd.grad(found, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize('way', module.WAYS)
def test_the_faster_way_is_taken_and_kept(way, timed, monkeypatch):
    other = next(name for name in module.WAYS if name != way)
    cases = timed(**{way: 1.0, other: 2.0})
    taken = []
    for name, call in module.WAYS.items():
        monkeypatch.setitem(
            module.WAYS,
            name,
            lambda *args, name=name, call=call: taken.append(name) or call(*args),
        )
    layer = Linear(5, 3)
    for _ in range(2):
        out = layer(torch.randn(2, 4, 5))
    assert out.shape == (2, 4, 3) and taken == [way, way]
    assert cases == [True]
    choices.forget()  # as a new process
    layer(torch.randn(2, 4, 5))
    assert taken[2:] == [way] and len(cases) == 1


def test_a_real_measurement_times_both_ways_and_draws_no_random_numbers():
    before = torch.get_rng_state()
    for training in (False, True):
        found = automatic_product(training)
        assert set(found.seconds) == set(module.WAYS) and found.source == 'measured'
        assert found.name == min(found.seconds, key=found.seconds.get)
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_come_from_a_measurement_of_their_own(timed):
    cases = timed(product=1.0, convolution=2.0)
    layer, x = Linear(5, 3), torch.randn(4, 5)
    layer(x)
    with torch.no_grad():
        layer(x)
    layer.weight.requires_grad_(False)
    layer(x)
    assert cases == [True, False]


@pytest.mark.parametrize('asked', ['fixed', *module.WAYS])
def test_the_variable_decides_without_a_measurement(asked, timed, monkeypatch):
    cases = timed(product=1.0, convolution=2.0)
    monkeypatch.setenv(module.VARIABLE, asked)
    expected = asked if asked in module.WAYS else 'product'
    assert automatic_product(training=True).name == expected
    assert not cases


def test_an_unknown_name_is_refused(monkeypatch):
    monkeypatch.setenv(module.VARIABLE, 'mkl')
    for call in (module.check_linear_asked, lambda: Linear(5, 3)(torch.randn(4, 5))):
        with pytest.raises(ValueError, match="ILLAMA_SEG_LINEAR='mkl': expected one"):
            call()


def test_a_resumed_run_keeps_its_way(timed):
    timed(product=1.0, convolution=2.0)
    key = 'linear layers: cpu, float32, training'
    choices.resume({key: 'convolution'})
    assert automatic_product(training=True).name == 'convolution'
    assert choices.made()[key] == 'convolution'


@pytest.mark.parametrize('kind', ['float64', 'bfloat16', 'autocast', 'compiled'])
def test_other_numbers_have_one_way(kind, timed):
    cases = timed(product=2.0, convolution=1.0)
    layer, x = Linear(5, 3), torch.randn(4, 5)
    plain = nn.Linear(5, 3)
    plain.load_state_dict(layer.state_dict())
    if kind == 'compiled':
        found = torch.compile(layer, backend='eager', fullgraph=True)(x)
        expected = plain(x)
    elif kind == 'autocast':
        with torch.autocast('cpu', torch.bfloat16):
            found, expected = layer(x), plain(x)
    else:
        dtype = getattr(torch, kind)
        found, expected = layer.to(dtype)(x.to(dtype)), plain.to(dtype)(x.to(dtype))
    assert torch.equal(found, expected) and not cases


@pytest.mark.parametrize('way', module.WAYS)
def test_no_tokens_give_none(way, monkeypatch):
    monkeypatch.setenv(module.VARIABLE, way)
    assert Linear(5, 3)(torch.zeros(0, 5)).shape == (0, 3)
