"""Learning rates by the batch that a recipe's rate is for."""

from __future__ import annotations

from mmengine.config import Config

from illama_seg.errors import UserError


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
            f'{cfg.filename} does not say which batch its learning rate is for: set '
            'auto_scale_lr.base_batch_size',
            auto_scale_lr=True,
        )
    cfg.auto_scale_lr.enable = True
