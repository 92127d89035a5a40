import sys

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from illama_seg.errors import UserError
from illama_seg.quantization import Quantizer, QuantLinear


def quantizer(step, signed=True):
    made = Quantizer(signed)
    made.step.data.fill_(step)
    made.ready.fill_(True)
    return made


@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=20),
    st.sampled_from([2**-4, 0.5, 2.0]),
    st.booleans(),
)
def test_values_are_rounded_to_multiples_of_the_step_and_clipped(values, step, signed):
    low, high = (-128, 127) if signed else (0, 255)
    found = quantizer(step, signed)(torch.tensor([values]))
    expected = step * np.clip(np.round(np.float64(values) / step), low, high)
    assert found[0].tolist() == expected.tolist()


def test_gradients_of_step_and_input_are_those_computed_by_hand():
    made = quantizer(0.5)
    x = torch.tensor([[0.6, -0.9], [100.0, -100.0]], requires_grad=True)
    (made(x) * torch.tensor([[1.0, 2], [3, 4]])).sum().backward()
    # x / step: 1.2 is rounded to 1, -1.8 to -2; the others are clipped.
    by_hand = 1 * (1 - 1.2) + 2 * (-2 + 1.8) + 3 * 127 + 4 * -128
    assert made.step.grad.item() == pytest.approx(by_hand / (2 * 127) ** 0.5)
    assert x.grad.tolist() == [[1, 2], [0, 0]]


def test_gradients_of_a_channels_step_and_weight_are_those_computed_by_hand():
    linear = QuantLinear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[0.6, 100.0], [-0.9, 0.25]])
    linear.weight_step.data = torch.tensor([0.5, 0.25])
    (linear.rounded_weight() * torch.tensor([[1.0, 2], [3, 4]])).sum().backward()
    first, second = 1 * (1 - 1.2) + 2 * 127, 3 * (-4 + 3.6) + 4 * 0
    found = linear.weight_step.grad * (2 * 127) ** 0.5
    assert found.tolist() == pytest.approx([first, second], abs=1e-4)
    assert linear.weight.grad.tolist() == [[1, 0], [3, 4]]


def test_the_larger_a_sample_the_smaller_the_gradient_of_the_step():
    grads = []
    for size in (16, 64):
        made = quantizer(0.1)
        made(torch.full((2, size), 0.13)).mean().backward()
        grads.append(made.step.grad.item())
    assert grads[0] / grads[1] == pytest.approx(2)


def test_the_first_tensor_sets_the_step_and_the_next_does_not():
    made = Quantizer()
    made(torch.linspace(-1, 1, 1001)[None])
    first = made.step.item()
    assert first == pytest.approx(1 / 127, rel=0.05)
    made(torch.linspace(-9, 9, 1001)[None])
    assert made.step.item() == first


def test_a_step_that_was_saved_is_not_set_again():
    made = Quantizer()
    made.load_state_dict(quantizer(0.25).state_dict())
    made(torch.randn(2, 8))
    assert made.step.item() == 0.25


def test_calibration_looks_at_all_tensors_and_changes_none():
    made = Quantizer()
    made.observe()
    for scale in (1.0, 3.0):
        x = torch.linspace(-scale, scale, 1001)[None]
        assert made(x) is x
    made.settle()
    assert made.step.item() == pytest.approx(3 / 127, rel=0.05)


def test_an_outlier_does_not_decide_the_step():
    x = torch.randn(1, 1_000_000)
    x[0, 0] = 30
    made = Quantizer()
    made(x)
    # Clipped it costs less than all the others by a coarser step.
    assert 4 / 127 < made.step.item() < 15 / 127


def test_of_what_is_never_negative_all_integers_are_used():
    made = Quantizer(signed=False)
    x = torch.linspace(0, 1, 10_001)[None]
    assert len(made(x).unique()) == 256 and made(x).min() == 0


def test_weights_have_a_step_for_each_channel_from_the_largest_of_it():
    linear = QuantLinear(3, 2, bias=False)
    linear.weight.data = torch.tensor([[1.27, -0.5, 0.1], [0.0, -12.7, 3.0]])
    linear(torch.randn(1, 3))
    assert linear.weight_step.tolist() == pytest.approx([0.01, 0.1])
    torch.testing.assert_close(linear.rounded_weight()[0], linear.weight[0])


def test_without_torchao_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchao.quantization.pt2e.observer', None)
    with pytest.raises(UserError, match='needs torchao: pip install torchao'):
        Quantizer()(torch.randn(1, 4))
    quantizer(0.1)(torch.randn(1, 4))  # has its step
