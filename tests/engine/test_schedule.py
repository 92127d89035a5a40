import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.dataset import sampler as mmengine_sampler
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.registry import DATA_SAMPLERS, PARAM_SCHEDULERS
from torch import nn

from illama_seg.engine import WarmupCosineLR, WholeUpdatesSampler


def closed_form(lr, eta_min, warmup, total):
    """The learning rate of every update, as the paper's authors computed it."""
    rest = total - warmup
    cosine = [
        eta_min + 0.5 * (lr - eta_min) * (1 + math.cos(math.pi * i / rest))
        for i in range(rest)
    ]
    return np.concatenate([np.linspace(0, lr, warmup), cosine])


def optimisation(lr=0.5, accumulate=1, groups=1):
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    optimizer = torch.optim.SGD(
        [dict(params=[w], lr=lr * (i + 1)) for i, w in enumerate(weights)], lr=lr
    )
    return OptimWrapper(optimizer, accumulative_counts=accumulate)


def iterate(wrapper, scheduler, iterations):
    """Learning rate of the first group at every iteration."""
    for _ in range(iterations):
        yield wrapper.param_groups[0]['lr']
        wrapper.update_params(wrapper.param_groups[0]['params'][0].sum())
        scheduler.step()


@given(
    warmup=st.integers(0, 12),
    rest=st.integers(1, 40),
    accumulate=st.integers(1, 4),
    lr=st.floats(1e-4, 1),
)
def test_every_update_has_the_learning_rate_of_the_closed_form(
    warmup, rest, accumulate, lr
):
    total, eta_min = warmup + rest, 1e-6
    wrapper = optimisation(lr, accumulate)
    scheduler = WarmupCosineLR(
        wrapper,
        warmup=warmup * accumulate,
        eta_min=eta_min,
        end=total * accumulate,
        by_epoch=False,
    )
    found = list(iterate(wrapper, scheduler, total * accumulate))
    expected = np.repeat(closed_form(lr, eta_min, warmup, total), accumulate)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)


def test_epochs_of_the_config_become_updates():
    wrapper = optimisation(0.5, 2)
    config = dict(
        type='WarmupCosineLR', warmup=2, eta_min=1e-6, end=5, convert_to_iter_based=True
    )
    scheduler = PARAM_SCHEDULERS.build(
        config, default_args=dict(optimizer=wrapper, epoch_length=6)
    )
    found = list(iterate(wrapper, scheduler, 30))
    np.testing.assert_allclose(found[::2], closed_form(0.5, 1e-6, 6, 15), rtol=1e-12)
    np.testing.assert_array_equal(found[::2], found[1::2])


def test_learning_rates_of_groups_keep_their_own_height():
    wrapper = optimisation(0.5, groups=2)
    scheduler = WarmupCosineLR(wrapper, warmup=3, eta_min=0.1, end=9, by_epoch=False)
    for _ in iterate(wrapper, scheduler, 3):
        pass
    assert [group['lr'] for group in wrapper.optimizer.param_groups] == [0.5, 1.0]
    for _ in iterate(wrapper, scheduler, 60):  # beyond the end it stays
        pass
    last = closed_form(0.5, 0.1, 3, 9)[-1], closed_form(1.0, 0.1, 3, 9)[-1]
    found = [group['lr'] for group in wrapper.optimizer.param_groups]
    np.testing.assert_allclose(found, last)


@pytest.mark.parametrize('accumulate', [2, 1, 4])
def test_resumed_schedule_goes_on_whatever_is_accumulated_now(accumulate):
    def make(every):
        wrapper = optimisation(0.5, every)
        end = 20 * every
        return wrapper, WarmupCosineLR(wrapper, 4 * every, 0.0, end, by_epoch=False)

    wrapper, scheduler = make(2)
    list(iterate(wrapper, scheduler, 7 * 2))
    state, moments = scheduler.state_dict(), wrapper.state_dict()
    wrapper, scheduler = make(accumulate)
    wrapper.load_state_dict(moments)
    scheduler.load_state_dict(state)
    found = list(iterate(wrapper, scheduler, 13 * accumulate))
    expected = np.repeat(closed_form(0.5, 0.0, 4, 20)[7:], accumulate)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_linear_warmup_of_mmengine_cannot_start_from_zero():
    wrapper = optimisation()
    with pytest.raises(ZeroDivisionError):
        scheduler = LinearLR(wrapper, start_factor=0, end=5, by_epoch=False)
        list(iterate(wrapper, scheduler, 2))


@pytest.mark.parametrize('warmup', [-1, 5, 9])
def test_a_warmup_that_leaves_no_training_is_refused(warmup):
    with pytest.raises(ValueError, match=rf'warmup={warmup}: .* 5 iterations'):
        WarmupCosineLR(optimisation(), warmup=warmup, end=5, by_epoch=False)


# Epochs


@pytest.fixture
def processes(monkeypatch):
    """Make a sampler believe to be one of several processes."""
    return lambda rank, size: monkeypatch.setattr(
        mmengine_sampler, 'get_dist_info', lambda: (rank, size)
    )


@pytest.mark.parametrize('size', [1, 8])
@pytest.mark.parametrize(('batch', 'updates'), [(4096, 312), (512, 2502)])
def test_imagenet_gives_floor_of_images_over_batch_updates(
    size, batch, updates, processes
):
    processes(0, size)
    sampler = WholeUpdatesSampler(range(1281167), batch, seed=0)
    assert len(sampler) * size == updates * batch


def test_processes_share_an_epoch_and_every_epoch_leaves_out_other_images(processes):
    epochs = []
    for epoch in range(2):
        parts = []
        for rank in range(2):
            processes(rank, 2)
            sampler = DATA_SAMPLERS.build(
                dict(type='WholeUpdatesSampler', effective_batch=8, seed=3),
                default_args=dict(dataset=range(30)),
            )
            sampler.set_epoch(epoch)
            parts.append(list(sampler))
            assert len(parts[-1]) == len(sampler) == 12
        assert len({*parts[0], *parts[1]}) == 24
        epochs.append({*parts[0], *parts[1]})
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match=r'effective_batch=31: .* 30 images'):
        WholeUpdatesSampler(range(30), 31, seed=0)
