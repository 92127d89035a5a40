"""Several processes on a machine without GPUs: gloo instead of NCCL."""

from __future__ import annotations

import atexit
import gc
import os
import subprocess

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.logging import print_log

from illama_seg.errors import UserError

# Launcher -> its variables for rank, number of processes, and rank on this machine.
VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}

STARTED_BY = dict(pytorch='torchrun', slurm='srun', mpi='mpirun')


def check_launcher(launcher: str) -> None:
    """Refuse a launcher that did not start this process.

    Raises:
        UserError: names the missing variable and the program to start with.
    """
    for name in VARIABLES.get(launcher, ()):
        if name not in os.environ:
            raise UserError(
                f'{name} is not set: start the program with {STARTED_BY[launcher]}',
                launcher=launcher,
            )


def join_processes(cfg: Config) -> None:
    """Connect a launcher's processes, over gloo where there is no GPU.

    Args:
        cfg: config with ``launcher``.

    Raises:
        UserError: a variable that the launcher sets is missing.
    """
    join_processes_without_gpus(cfg)
    if cfg.get('launcher', 'none') in VARIABLES and not dist.is_initialized():
        check_launcher(cfg.launcher)
        init_dist(cfg.launcher)


def join_processes_without_gpus(cfg: Config) -> None:
    """Connect a launcher's processes over gloo where there is no GPU.

    mmengine gives each process a GPU, whatever the backend. Batch normalisation is not
    synchronised on CPUs: PyTorch synchronises it on GPUs only. Registers
    :func:`leave_processes` for the end of the program, on GPUs too.

    Args:
        cfg: config with ``launcher``; its ``model_wrapper_cfg`` and ``sync_bn`` change.

    Raises:
        UserError: a variable that the launcher sets is missing.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher not in VARIABLES:
        return
    atexit.register(leave_processes)
    if get_device() != 'cpu':
        return
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False)
    wrapper.update(cfg.get('model_wrapper_cfg') or {})
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
    cfg.sync_bn = None
    if dist.is_initialized():
        return
    check_launcher(launcher)
    rank, processes, local_rank = (os.environ[name] for name in VARIABLES[launcher])
    os.environ.update(RANK=rank, WORLD_SIZE=processes, LOCAL_RANK=local_rank)
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(os.environ['SLURM_NODELIST'])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    dist.init_process_group('gloo')
    if dist.get_rank() == 0:
        print_log(
            f'no GPU: {processes} processes compute on CPUs, over gloo, each with its '
            f'own batch statistics and {torch.get_num_threads()} threads',
            logger='current',
            level=30,
        )


def leave_processes() -> None:
    """End the connections to the other processes while Python still runs.

    A gloo thread that frees a tensor after Python has begun to end ends the process
    with "terminate called without an active exception" (SIGABRT). The threads are
    joined when nothing holds the process group any more: runner, model and hooks do.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()


def _first_host(nodes: str) -> str:
    command = ['scontrol', 'show', 'hostname', nodes]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()[0]
