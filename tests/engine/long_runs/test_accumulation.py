"""The batch of a recipe, reached with the processes that there are."""

from types import SimpleNamespace

import pytest

from illama_seg.engine.long_runs.accumulation import accumulate


def runner(effective, processes=1, scaling=None):
    cfg = {} if effective is None else dict(effective_batch=effective)
    return SimpleNamespace(
        cfg=cfg,
        world_size=processes,
        optim_wrapper=dict(type='OptimWrapper'),
        auto_scale_lr=scaling,
    )


def loader(batch_size):
    sampler = dict(type='SeededSampler', sampler=dict(type='S'))
    return dict(batch_size=batch_size, sampler=sampler)


@pytest.mark.parametrize(('processes', 'counts'), [(1, 32), (8, 4), (32, 1), (2, 16)])
@pytest.mark.parametrize('wrapped', [True, False])
def test_gradients_are_accumulated_to_the_batch_of_the_recipe(
    processes, counts, wrapped
):
    found, dataloader = runner(4096, processes), loader(128)
    sampler = dataloader['sampler']['sampler']
    if not wrapped:
        dataloader['sampler'] = sampler
    accumulate(found, dataloader)
    assert found.optim_wrapper['accumulative_counts'] == counts
    assert sampler == dict(type='S', effective_batch=4096)


@pytest.mark.parametrize('batch_size', [0, 100, 8192])
def test_a_batch_that_does_not_divide_is_refused_with_all_numbers(batch_size):
    with pytest.raises(ValueError, match='effective_batch=4096: expected a') as error:
        accumulate(runner(4096), loader(batch_size))
    assert f'1 processes x train_dataloader.batch_size={batch_size}' in str(error.value)


def test_processes_that_cannot_share_the_batch_are_told_one_that_they_can():
    with pytest.raises(ValueError, match='a multiple of 768 images') as error:
        accumulate(runner(4096, 6), loader(128))
    assert 'effective_batch=3840' in str(error.value)


def test_without_an_effective_batch_nothing_is_changed():
    found = runner(None)
    accumulate(found, {})
    assert found.optim_wrapper == dict(type='OptimWrapper')


def test_the_learning_rate_is_scaled_by_an_iterations_batch():
    """mmengine compares the base with the images of one iteration."""
    found = runner(64, scaling=dict(enable=True, base_batch_size=128))
    accumulate(found, loader(16))
    assert found.auto_scale_lr == dict(enable=True, base_batch_size=32)
