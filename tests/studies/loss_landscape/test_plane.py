import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from illama_seg.studies.loss_landscape.plane import (
    WeightPlane,
    random_direction,
    weights_digest,
)


def small():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4)
    )
    model[0].weight.data[2] *= 100
    return model.eval()


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def draw(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return random_direction(dict(model.named_parameters()), generator)


def test_every_filter_of_a_direction_is_as_long_as_that_of_the_weights():
    model = small()
    direction = draw(model)
    for layer, number in ((model[0], 0), (model[3], 3)):
        for row, drawn in zip(layer.weight, direction[f'{number}.weight'], strict=True):
            assert drawn.norm().item() == pytest.approx(row.norm().item(), rel=1e-5)
            # Its own direction, not that of the weights.
            cosine = (drawn * row).sum() / row.norm() ** 2
            assert abs(cosine) < 0.8


def test_biases_and_norms_stay():
    direction = draw(small())
    still = {name for name, tensor in direction.items() if not tensor.any()}
    assert still == {'0.bias', '1.weight', '1.bias', '3.bias'}


def test_a_filter_of_zeros_stays():
    model = small()
    model[3].weight.data[1] = 0
    assert not draw(model)['3.weight'][1].any()


places = st.floats(-2, 2, width=32)


@settings(max_examples=10)
@given(places, places)
def test_a_point_is_the_weights_and_both_directions(x, y):
    model = small()
    before = state(model)
    with WeightPlane(model, 3) as plane:
        first, second = plane.directions
        plane.move(1.0, -1.0)  # points do not add up
        plane.move(x, y)
        for name, parameter in model.named_parameters():
            expected = before[name] + x * first[name] + y * second[name]
            torch.testing.assert_close(parameter.detach(), expected)
    assert all(torch.equal(before[name], now) for name, now in state(model).items())


def test_weights_are_put_back_after_an_interruption_and_a_point_that_diverged():
    model = small()
    before = state(model)
    with pytest.raises(KeyboardInterrupt), WeightPlane(model, 0) as plane:
        plane.move(float('inf'), 0.0)
        raise KeyboardInterrupt
    assert all(torch.equal(before[name], now) for name, now in state(model).items())


def test_the_seed_decides_and_the_two_directions_differ():
    planes = [WeightPlane(small(), seed) for seed in (0, 0, 1)]
    (first, second), (again, _), (other, _) = (plane.directions for plane in planes)
    name = '3.weight'
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], second[name])


def test_a_loss_that_does_not_change_with_scale_has_the_same_plane():
    """What the normalisation is for: weights before a norm, ten times as large."""
    images = torch.randn(8, 3, 4, 4)
    values = []
    for scale in (1.0, 10.0):
        model = small()
        model[0].bias.data.zero_()
        model[0].weight.data *= scale
        model[1].running_var *= scale**2
        with WeightPlane(model, 0) as plane, torch.no_grad():
            plane.move(0.3, -0.4)
            values.append(model(images))
    torch.testing.assert_close(*values, rtol=1e-3, atol=1e-4)


def test_the_digest_is_of_every_weight():
    assert weights_digest(small()) == weights_digest(small())
    changed = small()
    changed[1].running_mean[0] += 1e-6
    assert weights_digest(changed) != weights_digest(small())
