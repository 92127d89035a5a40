"""Build training and test runs, with every mistake met before the model is built."""

from __future__ import annotations

import ctypes
import os
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from illama_seg.apis.checks import check_data, check_pretrained, check_schedule
from illama_seg.apis.runs.batches import (
    enable_auto_scale_lr,
    scaling_of_an_iteration,
    set_accumulation,
)
from illama_seg.apis.runs.overview import ESTIMATED_AFTER, OverviewHook
from illama_seg.apis.runs.processes import join_processes_without_gpus
from illama_seg.apis.runs.resuming import SKIP_CORRUPT, build_long_run
from illama_seg.apis.user_errors import check_writable, options_explained
from illama_seg.engine import PlainCheckpointHook, TimeEstimateHook
from illama_seg.errors import UserError


def build_trainer(
    cfg: Config,
    amp: bool = False,
    resume: bool = False,
    auto_scale_lr: bool = False,
    skip_corrupt: bool = False,
) -> Runner:
    """Check data, weights, schedule and work dir, then build the training run.

    It says what it is about to do right before its first iteration.

    Args:
        cfg: config of :func:`load_config`.
        amp: half precision where it is faster here: ``AutocastOptimWrapper``.
        resume: go on from the newest whole checkpoint in the work dir.
        auto_scale_lr: scale the learning rate with the batch, from the one that the
            config's ``auto_scale_lr.base_batch_size`` or ``effective_batch`` names.
        skip_corrupt: skip images that cannot be read, up to the share of them that the
            config's ``skip_corrupt`` is, else one in a hundred.

    Raises:
        FileNotFoundError: data or a checkpoint is missing.
        ValueError: data, checkpoint, work dir or an option cannot be used.
    """
    check_writable(cfg.work_dir, '--work-dir')
    check_data(cfg, ('train', 'val'))
    opened = check_pretrained(cfg)
    check_schedule(cfg)
    set_accumulation(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    _keep_freed_memory()
    if amp:
        _set_amp(cfg)
    if skip_corrupt:
        cfg.skip_corrupt = cfg.get('skip_corrupt') or SKIP_CORRUPT
    cfg.resume = resume or cfg.get('resume', False)
    runner_type = _runner_type(cfg)
    join_processes_without_gpus(cfg)
    with options_explained(cfg):
        runner = build_long_run(cfg, runner_type)
    cast(Any, runner).pretrained = opened  # not read again while held
    runner.auto_scale_lr = scaling_of_an_iteration(cfg)
    runner.register_hook(TimeEstimateHook(ESTIMATED_AFTER))
    runner.register_hook(PlainCheckpointHook())
    runner.register_hook(OverviewHook())
    return runner


def _keep_freed_memory() -> None:
    """On a CPU, let the next iteration use again what the last one freed.

    glibc gives every large block back to the system, and touching it anew costs the
    demo a twelfth of its time, losses over more classes more. Other C libraries know no
    mallopt.
    """
    if os.name != 'posix' or torch.cuda.is_available():
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
        mallopt(-4, 0)  # M_MMAP_MAX: none


def _runner_type(cfg: Config) -> type[Runner]:
    """What the config's ``runner_type`` names, mmengine's key for it."""
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
        print_log(f'--amp: the config already has {wrapper.type}', logger='current')
