"""Reach the batch of a recipe with the processes that there are."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner

from illama_seg.errors import UserError


def accumulate(runner: Runner, dataloader: dict) -> None:
    """Accumulate gradients until the config's ``effective_batch`` images are reached.

    Sets the ``accumulative_counts`` of the runner's optimiser, which is not built yet,
    to effective batch / (processes x images of each), and hands the effective batch to
    the training sampler. Without ``effective_batch`` both are left as they are. In
    either case the ``base_batch_size`` of ``auto_scale_lr`` becomes the batch of one
    iteration, since mmengine overlooks accumulated gradients.

    Raises:
        UserError: the effective batch is not a multiple of what the processes take.
    """
    wrapper: Any = runner.optim_wrapper
    effective = runner.cfg.get('effective_batch')
    if effective is not None:
        processes, images = runner.world_size, dataloader['batch_size']
        counts = iterations_to_update(effective, processes, images)
        print_log(
            f'batch of {effective}: {processes} processes x {images} images x {counts} '
            'iterations to an update',
            logger='current',
        )
        wrapper['accumulative_counts'] = counts
        sampler = dataloader['sampler']
        sampler.get('sampler', sampler)['effective_batch'] = effective
    counts = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, dict) else 1
    scaling: Any = runner.auto_scale_lr
    if scaling and scaling.get('enable'):
        base = scaling['base_batch_size'] / counts
        runner.auto_scale_lr = dict(enable=True, base_batch_size=base)


def iterations_to_update(effective: int, processes: int, images: int) -> int:
    """Return the iterations that accumulate gradients for one update.

    Raises:
        UserError: the effective batch is not a multiple of processes x images.
    """
    at_once = processes * images
    if at_once < 1 or effective < 1 or effective % at_once:
        nearest = max(effective // max(at_once, 1), 1) * at_once
        raise UserError(
            f'expected a multiple of {at_once} images, {processes} processes x '
            f'train_dataloader.batch_size={images}: set '
            + (
                'another train_dataloader.batch_size, which divides it'
                if at_once < 1 or effective % processes == 0
                else f'effective_batch={nearest} and scale the learning rate with it '
                '(auto_scale_lr.enable=True), or take another number of processes'
            ),
            effective_batch=effective,
        )
    return effective // at_once
