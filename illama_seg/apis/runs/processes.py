"""Several processes on a machine without GPUs: gloo instead of NCCL."""

from __future__ import annotations

import atexit
import os
import subprocess

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log

from illama_seg.errors import UserError

# Launcher -> what it calls rank, processes, and number on this machine.
VARIABLES = {
    'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    'mpi': (
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}


def join_processes_without_gpus(cfg: Config) -> None:
    """Let a launcher's processes train on CPUs, where there is nothing else.

    mmengine gives each a GPU, whatever the backend. Batch normalisation is not
    synchronised then: PyTorch's does so on GPUs only. On CPUs and on GPUs the processes
    part when the program ends.

    Args:
        cfg: config with ``launcher``; its ``model_wrapper_cfg`` and ``sync_bn`` change.

    Raises:
        ValueError: a variable that the launcher sets is missing.
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
    variables = VARIABLES[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher}, but {missing[0]} is not set: start it with '
            f'{"torchrun" if launcher == "pytorch" else "srun or mpirun"}'
        )
    rank, processes, local_rank = (os.environ[name] for name in variables)
    os.environ.update(RANK=rank, WORLD_SIZE=processes, LOCAL_RANK=local_rank)
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(os.environ['SLURM_NODELIST'])
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')
    dist.init_process_group('gloo')
    if dist.get_rank() == 0:
        print_log(
            f'no GPU: {processes} processes compute on CPUs, over gloo, each with '
            f'batch statistics of its own and {torch.get_num_threads()} threads',
            logger='current',
            level=30,
        )


def leave_processes() -> None:
    """End the connections to the other processes while Python still runs.

    The threads of a process group that is alive when the interpreter is torn down can
    end the process with "terminate called without an active exception" (SIGABRT).
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def _first_host(nodes: str) -> str:
    command = ['scontrol', 'show', 'hostname', nodes]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()[0]
