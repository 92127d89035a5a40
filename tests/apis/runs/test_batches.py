import pytest
from mmengine.config import Config

from illama_seg.apis.runs.batches import set_accumulation


def config(effective, batch_size, launcher='none'):
    return Config(
        dict(
            effective_batch=effective,
            launcher=launcher,
            optim_wrapper=dict(type='OptimWrapper'),
            train_dataloader=dict(batch_size=batch_size, sampler=dict(type='S')),
        )
    )


@pytest.mark.parametrize(
    ('launcher', 'variable', 'processes', 'counts'),
    [
        ('none', 'WORLD_SIZE', 1, 32),
        ('pytorch', 'WORLD_SIZE', 8, 4),
        ('slurm', 'SLURM_NTASKS', 32, 1),
        ('mpi', 'OMPI_COMM_WORLD_SIZE', 2, 16),
    ],
)
def test_gradients_are_accumulated_to_the_batch_of_the_recipe(
    launcher, variable, processes, counts, monkeypatch
):
    monkeypatch.setenv(variable, str(processes) if launcher != 'none' else '8')
    cfg = config(4096, 128, launcher)
    set_accumulation(cfg)
    assert cfg.optim_wrapper.accumulative_counts == counts
    assert cfg.train_dataloader.sampler.effective_batch == 4096


@pytest.mark.parametrize('batch_size', [0, 100, 8192])
def test_a_batch_that_does_not_divide_is_refused_with_all_numbers(batch_size):
    with pytest.raises(
        ValueError, match=r'effective_batch=4096 is not a mult'
    ) as error:
        set_accumulation(config(4096, batch_size))
    assert f'1 processes x train_dataloader.batch_size={batch_size}' in str(error.value)


def test_processes_that_cannot_share_the_batch_are_told_one_that_they_can(monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '6')
    with pytest.raises(ValueError, match=r'4096 is not a multiple of 768') as error:
        set_accumulation(config(4096, 128, 'pytorch'))
    assert 'effective_batch=3840 and auto_scale_lr' in str(error.value)


def test_a_config_without_an_effective_batch_is_left_alone():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    set_accumulation(cfg)
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
