"""The batch that a recipe asks for, from the GPUs that there are; else its rate."""

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
    of each), and hands the effective batch to the training sampler. A config without
    ``effective_batch`` is left as it is.

    Raises:
        ValueError: if the effective batch is not a multiple of what the processes take.
    """
    effective = cfg.get('effective_batch')
    if effective is None:
        return
    # The launcher is asked: mmengine has not started the processes yet.
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
                '--cfg-options train_dataloader.batch_size=... to divide it'
                if at_once < 1 or effective % processes == 0
                else f'--cfg-options effective_batch={nearest}, and --auto-scale-lr, '
                'or take another number of processes'
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
    """Keep what a config's file says of its batch, and the learning rate for it.

    In ``auto_scale_lr``, mmengine's place for it, before overrides change them.
    """
    scaling = cfg.get('auto_scale_lr')
    if scaling is None and cfg.get('effective_batch') is not None:
        scaling = dict(enable=False, base_batch_size=cfg.effective_batch)
    rate = cfg.get('optim_wrapper', {}).get('optimizer', {}).get('lr')
    if scaling is not None:
        cfg.auto_scale_lr = {'base_lr': rate, **scaling}


def recipe_batch(cfg: Config) -> int | None:
    """Images to an update that the config's learning rate is for, if it says so."""
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size')


def fitting_rate(cfg: Config, batch: int) -> float | None:
    """Learning rate for a batch, linearly from the recipe's; None where unknown."""
    rate = (cfg.get('auto_scale_lr') or {}).get('base_lr')
    recipe = recipe_batch(cfg)
    return rate * batch / recipe if rate and recipe else None


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate linearly with the batch (arXiv 1706.02677).

    Raises:
        ValueError: if the config does not say which batch its learning rate is for.
    """
    if not recipe_batch(cfg):
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} does not say which batch its learning '
            'rate is for: --cfg-options auto_scale_lr.base_batch_size=...'
        )
    cfg.auto_scale_lr.enable = True


def scaling_of_an_iteration(cfg: Config) -> dict | None:
    """``auto_scale_lr`` as mmengine needs it, which overlooks accumulated gradients."""
    if not (cfg.get('auto_scale_lr') or {}).get('enable'):
        return cfg.get('auto_scale_lr')
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    return dict(enable=True, base_batch_size=cfg.auto_scale_lr.base_batch_size / counts)
