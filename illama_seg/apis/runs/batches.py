"""Reach a recipe's batch by accumulation, or scale its learning rate."""

from __future__ import annotations

import os

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from illama_seg.apis.runs.processes import VARIABLES
from illama_seg.errors import UserError


def set_accumulation(cfg: Config) -> None:
    """Accumulate gradients until a config's ``effective_batch`` images are reached.

    Sets ``optim_wrapper.accumulative_counts`` to effective batch / (processes x images
    per process) and the sampler's ``effective_batch``. A config without
    ``effective_batch`` is not changed.

    Raises:
        UserError: if the effective batch is not a multiple of processes x images.
    """
    effective = cfg.get('effective_batch')
    if effective is None:
        return
    # From the launcher's variable: mmengine has not started the processes yet.
    _, variable, _ = VARIABLES.get(cfg.get('launcher', 'none'), ('', '', ''))
    processes = int(os.environ.get(variable, get_world_size()))
    images = cfg.train_dataloader.batch_size
    at_once = processes * images
    if at_once < 1 or effective < 1 or effective % at_once:
        nearest = max(effective // max(at_once, 1), 1) * at_once
        raise UserError(
            f'effective_batch={effective} is not a multiple of {at_once} images '
            f'({processes} processes x train_dataloader.batch_size={images}): set '
            + (
                'train_dataloader.batch_size to a number that divides it'
                if at_once < 1 or effective % processes == 0
                else f'effective_batch={nearest} and auto_scale_lr, or start another '
                'number of processes'
            )
        )
    counts = effective // at_once
    cfg.optim_wrapper.accumulative_counts = counts
    cfg.train_dataloader.sampler.effective_batch = effective
    print_log(
        f'batch of {effective}: {processes} processes x {images} images x {counts} '
        'iterations to an update',
        logger='current',
    )


def note_recipe(cfg: Config) -> None:
    """Copy the config file's batch and learning rate, before overrides change them.

    Writes them into ``auto_scale_lr``, where mmengine looks for the batch.
    """
    scaling = cfg.get('auto_scale_lr')
    if scaling is None and cfg.get('effective_batch') is not None:
        scaling = dict(enable=False, base_batch_size=cfg.effective_batch)
    rate = cfg.get('optim_wrapper', {}).get('optimizer', {}).get('lr')
    if scaling is not None:
        cfg.auto_scale_lr = {'base_lr': rate, **scaling}


def recipe_batch(cfg: Config) -> int | None:
    """Images per update that the config's learning rate is for, or None."""
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')


def fitting_rate(cfg: Config, batch: int) -> float | None:
    """Scale the recipe's learning rate linearly to a batch; None if unknown."""
    rate = (cfg.get('auto_scale_lr') or {}).get('base_lr')
    recipe = recipe_batch(cfg)
    return rate * batch / recipe if rate and recipe else None


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch (arXiv 1706.02677).

    Raises:
        UserError: if the config does not name the batch of its learning rate.
    """
    if not recipe_batch(cfg):
        raise UserError(
            f'{cfg.filename} does not name the batch that its learning rate is for: '
            'set auto_scale_lr.base_batch_size=...',
            auto_scale_lr=True,
        )
    cfg.auto_scale_lr.enable = True


def scaling_of_an_iteration(cfg: Config) -> dict | None:
    """Divide the batch in ``auto_scale_lr``: mmengine overlooks accumulation."""
    if not (cfg.get('auto_scale_lr') or {}).get('enable'):
        return cfg.get('auto_scale_lr')
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    return dict(enable=True, base_batch_size=cfg.auto_scale_lr.base_batch_size / counts)
