"""Build training runs; check everything that can be checked beforehand."""

from __future__ import annotations

import ctypes
import os
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from illama_seg.apis.checks import (
    check_batch_norm,
    check_data,
    check_pretrained,
    check_schedule,
)
from illama_seg.apis.runs import overview  # registers the config's hook  # noqa: F401
from illama_seg.apis.runs.batches import enable_auto_scale_lr
from illama_seg.apis.runs.foreign import complete_runtime
from illama_seg.apis.runs.loggers import check_loggers
from illama_seg.apis.runs.processes import join_processes_without_gpus
from illama_seg.apis.user_errors import (
    check_writable,
    explain_building,
    options_explained,
)
from illama_seg.errors import UserError
from illama_seg.quiet import quiet_terminal

SKIP_CORRUPT = 0.01  # share of the training images, by the parameter of that name


def build_trainer(
    cfg: Config,
    amp: bool = False,
    resume: bool = False,
    auto_scale_lr: bool = False,
    skip_corrupt: bool = False,
) -> Runner:
    """Check data, weights, schedule and work dir, then build the training run.

    Before the first iteration the run rehearses a step and a validation without a trace
    (``RehearsalHook``) and logs an overview (``OverviewHook``).

    Args:
        cfg: config of :func:`load_config`.
        amp: half precision where it is faster here: ``AutocastOptimWrapper``.
        resume: go on from the newest whole checkpoint in the work dir.
        auto_scale_lr: scale the learning rate with the batch, from the one that the
            config's ``auto_scale_lr.base_batch_size`` or ``effective_batch`` names.
        skip_corrupt: skip images that cannot be read, up to the share of them that the
            config's ``CorruptImagesHook`` allows, or one in a hundred where that is 0.

    Raises:
        MissingFileError: data or a checkpoint is missing.
        UserError: data, checkpoint, work dir or an option cannot be used.
    """
    check_writable(cfg.work_dir, 'work_dir')
    check_loggers(cfg)
    datasets = check_data(cfg, ('train', 'val'))
    opened = check_pretrained(cfg)
    check_schedule(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    _keep_freed_memory()
    if amp:
        _set_amp(cfg)
    complete_runtime(cfg)
    if skip_corrupt:
        cfg.default_hooks.setdefault('corrupt_images', dict(type='CorruptImagesHook'))
        hook = cfg.default_hooks.corrupt_images
        hook['limit'] = hook.get('limit') or SKIP_CORRUPT
    cfg.resume = resume or cfg.get('resume', False)
    runner_type = _runner_type(cfg)
    join_processes_without_gpus(cfg)
    with options_explained(cfg), quiet_terminal(runner_type):
        runner = runner_type.from_cfg(cfg)
    explain_building(runner, cfg)
    check_batch_norm(runner, cfg, len(datasets['train']))
    cast(Any, runner).pretrained = opened  # not read again while held
    return runner


def _keep_freed_memory() -> None:
    """Keep freed memory for the next iteration, on a CPU with glibc.

    glibc returns every large block to the system; touching new pages costs the demo a
    twelfth of its time, and more with more classes.
    """
    if os.name != 'posix' or torch.cuda.is_available():
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
        mallopt(-4, 0)  # M_MMAP_MAX: none


def _runner_type(cfg: Config) -> type[Runner]:
    """Look up the config's ``runner_type``."""
    name = cfg.get('runner_type', 'Runner')
    found = RUNNERS.get(name) if isinstance(name, str) else name
    if not isinstance(found, type) or not issubclass(found, Runner):
        raise UserError(
            f"runner_type={name!r}: expected 'Runner', or 'ShardedRunner' to shard the "
            'weights over the processes (FSDP)'
        )
    return found


def _set_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    if wrapper.type == 'OptimWrapper':
        wrapper.type = 'AutocastOptimWrapper'
    else:
        print_log(f'amp: the config already has {wrapper.type}', logger='current')
