import os
import socket
import weakref

import pytest
import torch.distributed as dist
from mmengine.config import Config

from illama_seg.apis.runs.processes import (
    VARIABLES,
    join_processes_without_gpus,
    leave_processes,
)


@pytest.fixture(autouse=True)
def at_exit(monkeypatch):
    monkeypatch.setattr('illama_seg.apis.runs.processes.get_device', lambda: 'cpu')
    registered = []
    monkeypatch.setattr(
        'illama_seg.apis.runs.processes.atexit.register', registered.append
    )
    for name in sum(VARIABLES.values(), ('MASTER_ADDR', 'MASTER_PORT')):
        monkeypatch.delenv(name, raising=False)
    return registered


@pytest.mark.parametrize('launcher', VARIABLES)
def test_a_launchers_processes_are_joined_by_gloo(launcher, monkeypatch):
    with socket.socket() as found:
        found.bind(('localhost', 0))
        monkeypatch.setenv('MASTER_PORT', str(found.getsockname()[1]))
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    for name in VARIABLES['pytorch']:  # it sets them, for mmengine
        monkeypatch.setenv(name, '5')
    for name, value in zip(VARIABLES[launcher], '010', strict=True):
        monkeypatch.setenv(name, value)
    cfg = Config(dict(launcher=launcher, sync_bn='torch'))
    cfg.model_wrapper_cfg = dict(broadcast_buffers=True)
    join_processes_without_gpus(cfg)
    try:
        assert (dist.get_rank(), dist.get_world_size()) == (0, 1)
        assert dist.get_backend() == 'gloo' and cfg.sync_bn is None
        assert os.environ['LOCAL_RANK'] == '0'
        wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=True)
        assert dict(cfg.model_wrapper_cfg) == dict(wrapper, device_ids=None)
        leave_processes()  # what the end of the program calls
        assert not dist.is_initialized()
        leave_processes()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.setenv('SLURM_PROCID', '0')
    with pytest.raises(ValueError, match="launcher='slurm': SLURM_NTASKS is not"):
        join_processes_without_gpus(Config(dict(launcher='slurm')))


def test_one_process_and_processes_with_gpus_are_left_to_mmengine(monkeypatch, at_exit):
    cfg = Config(dict(launcher='none', sync_bn='torch'))
    join_processes_without_gpus(cfg)
    assert not at_exit
    monkeypatch.setattr('illama_seg.apis.runs.processes.get_device', lambda: 'cuda')
    cfg.launcher = 'pytorch'
    join_processes_without_gpus(cfg)
    assert cfg.sync_bn == 'torch' and 'model_wrapper_cfg' not in cfg
    assert not dist.is_initialized()
    assert at_exit == [leave_processes]  # mmengine's group is ended as well


def test_what_still_holds_a_process_group_is_freed_first():
    """Else its threads are not joined, and may end Python by SIGABRT."""

    class Runner:
        def __init__(self):
            self.own = self  # only the collector frees it

    held = weakref.ref(Runner())
    assert held() is not None
    leave_processes()
    assert held() is None
