"""Reach a recipe's batch by accumulation, or scale its learning rate."""

from __future__ import annotations

from mmengine.config import Config

from illama_seg.errors import UserError


def learning_rate(cfg: Config) -> float | None:
    """Learning rate of a config, or None."""
    return cfg.get('optim_wrapper', {}).get('optimizer', {}).get('lr')


def note_recipe(cfg: Config, rate: float | None) -> None:
    """Copy the config file's batch and learning rate, before overrides change them.

    Writes them into ``auto_scale_lr``, where mmengine looks for the batch.

    Args:
        cfg: config; changed in place.
        rate: learning rate of the config file.
    """
    scaling = cfg.get('auto_scale_lr')
    if scaling is None and cfg.get('effective_batch') is not None:
        scaling = dict(enable=False, base_batch_size=cfg.effective_batch)
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
            f'{cfg.filename} does not say which batch its learning rate is for: set '
            'auto_scale_lr.base_batch_size',
            auto_scale_lr=True,
        )
    cfg.auto_scale_lr.enable = True
