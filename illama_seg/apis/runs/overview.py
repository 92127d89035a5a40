"""What a training run is about to do, in one block before its first iteration."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from torch import nn

from illama_seg.apis.runs.batches import fitting_rate, recipe_batch
from illama_seg.checkpoints import LoadReport
from illama_seg.engine import SeededDataset, training_precision
from illama_seg.engine.schedule import updates_every
from illama_seg.layers import SelfAttention, automatic_implementation
from illama_seg.machine import choices
from illama_seg.machine.threads import describe_wait_policy

ESTIMATED_AFTER = 50  # iterations


@HOOKS.register_module()
class OverviewHook(Hook):
    """Log :func:`describe_run`, after all that mmengine logs before a training."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Log the block; every process takes over what the main one measured."""
        training_precision(runner.optim_wrapper)
        block = describe_run(runner) if is_main_process() else ''
        made = [choices.made()]
        broadcast_object_list(made)
        if not is_main_process():
            choices.resume(made[0])
        if block:
            runner.logger.info('\n%s', block)


def describe_run(runner: Runner) -> str:
    """Data, length, batch, learning rate, weights, precision, devices, attention.

    Args:
        runner: built, its weights loaded, at its first iteration.

    Returns:
        A block of lines, ruled above and below.
    """
    model: Any = runner.model
    model = model.module if is_model_wrapper(model) else model
    resumed_from = _resumed_from(runner)
    precision = training_precision(runner.optim_wrapper)
    attention = describe_attention(
        model,
        precision.dtype,
        count_tokens(model),
        runner.train_dataloader.batch_size or 1,
        training=True,
    )
    rows = [
        ('run', f'{runner.cfg.filename} in {runner.work_dir}'),
        ('train data', _data(runner.train_dataloader)),
        *([('val data', _data(runner.val_dataloader))] if runner.val_loop else []),
        ('length', _length(runner)),
        ('batch', _batch(runner)),
        ('learning rate', _learning_rate(runner, bool(resumed_from))),
        ('weights', resumed_from or _weights(runner, model)),
        ('precision', precision.reason),
        ('devices', _devices(runner)),
        ('attention', attention),
    ]
    if runner.max_iters - runner.iter > ESTIMATED_AFTER:
        rows.append(('time', f'estimated after {ESTIMATED_AFTER} iterations'))
    rule = '-' * 72
    return '\n'.join([rule, *(f'{name:<15}{text}' for name, text in rows), rule])


def images_to_an_update(runner: Runner) -> int:
    """Images of all processes, over the iterations that gradients accumulate."""
    images = runner.train_dataloader.batch_size or 1
    return runner.world_size * images * updates_every(runner.optim_wrapper)


def _data(loader: Any) -> str:
    dataset = loader.dataset
    if isinstance(dataset, SeededDataset):
        dataset = dataset.dataset
    folder = getattr(dataset, 'data_prefix', {}).get('img_path') or ''
    folder = folder or getattr(dataset, 'data_root', '') or type(dataset).__name__
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return f'{len(dataset):,} images, {len(classes)} classes: {folder}'


def _length(runner: Runner) -> str:
    images = runner.world_size * (runner.train_dataloader.batch_size or 1)
    passes = runner.max_iters * images / len(runner.train_dataloader.dataset)
    text = f'{runner.max_iters:,} iterations, {passes:,.1f} times through the data'
    if (every := updates_every(runner.optim_wrapper)) > 1:
        text += f', {runner.max_iters // every:,} updates'
    return text if not runner.iter else f'{text}; {runner.iter:,} iterations are done'


def _batch(runner: Runner) -> str:
    total, recipe = images_to_an_update(runner), recipe_batch(runner.cfg)
    unit = 'GPU' if torch.cuda.is_available() else 'process'
    text = (
        f'{runner.world_size} {unit} x {runner.train_dataloader.batch_size} images x '
        f'{updates_every(runner.optim_wrapper)} accumulated = {total}'
    )
    if recipe is None:
        return f'{text}; the config names none to compare it with'
    return f"{text}, {'' if total == recipe else 'NOT '}the recipe's {recipe}"


def _learning_rate(runner: Runner, resumed: bool) -> str:
    rates = _highest_rates(runner)
    low, high = min(rates), max(rates)
    text = f'{high:.4g}' if math.isclose(low, high) else f'{low:.4g} to {high:.4g}'
    if resumed:
        return f'{text}, as resumed'
    total, cfg = images_to_an_update(runner), runner.cfg
    recipe, fits = recipe_batch(cfg), fitting_rate(cfg, total)
    if fits is None or recipe is None or total == recipe:
        return text
    rate = cfg.optim_wrapper.optimizer.lr
    if cfg.auto_scale_lr.get('enable'):
        rate *= total / recipe
    base = f'{cfg.auto_scale_lr.base_lr:.4g} for {recipe}'
    if math.isclose(rate, fits, rel_tol=0.01):
        return f"{text}, by linear scaling of the recipe's {base}"
    return (
        f"{text}; linear scaling of the recipe's {base} gives {fits:.4g}: "
        f'--auto-scale-lr, or --cfg-options optim_wrapper.optimizer.lr={fits:.4g}'
    )


def _highest_rates(runner: Runner) -> list[float]:
    """Of each parameter group, what the schedules start from."""
    groups = runner.optim_wrapper.optimizer.param_groups
    schedulers = runner.param_schedulers
    for scheduler in schedulers if isinstance(schedulers, list) else ():
        if scheduler.param_name == 'lr':
            # mmengine adds one for its log, which it does not scale.
            return scheduler.base_values[: len(groups)]
    return [group.get('initial_lr', group['lr']) for group in groups]


def _resumed_from(runner: Runner) -> str:
    if not runner._resume or not runner._has_loaded:
        return ''
    # mmengine keeps no record of what it found.
    path = runner._load_from or find_latest_checkpoint(runner.work_dir)
    return f'resumed from {path}, at iteration {runner.iter:,}'


def _weights(runner: Runner, model: nn.Module) -> str:
    start = f'nothing to resume in {runner.work_dir}; ' if runner._resume else ''
    if runner._load_from:
        return f'{start}all of {runner._load_from}'
    found = [getattr(module, 'load_report', None) for module in model.modules()]
    reports = [report for report in found if isinstance(report, LoadReport)]
    if not reports:
        return f'{start}from scratch'
    return start + '; '.join(report.summary for report in reports)


def _devices(runner: Runner) -> str:
    if not torch.cuda.is_available():
        return (
            f'{choices.device_name("cpu")}, {torch.get_num_threads()} threads on '
            f'{os.cpu_count()} cores, {describe_wait_policy()}'
        )
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    text = f'{runner.world_size} x {card.name}, {card.total_memory / 2**30:.0f} GiB'
    found = torch.cuda.device_count()
    if runner.world_size > 1 or found < 2:
        return text
    return f'{text}; of {found}: tools/dist_train.sh CONFIG {found} uses all'


def describe_attention(
    model: nn.Module,
    dtype: torch.dtype,
    num_tokens: int,
    batch_size: int,
    training: bool,
) -> str:
    """Mask and implementation that a model's attention takes for such a batch."""
    layers = [m for m in model.modules() if isinstance(m, SelfAttention)]
    if not layers:
        return 'not of this package'
    layer = layers[0]
    if layer.mask != 'soft':
        return f'{layer.mask}, scaled_dot_product_attention, {num_tokens} tokens'
    if layer.impl != 'auto':
        return f'soft mask by {layer.impl!r}, {num_tokens} tokens'
    weight, heads = layer.qkv.weight, layer.num_heads
    chosen = automatic_implementation(
        weight.device.type,
        dtype,
        weight.shape[1] // heads,
        num_tokens,
        batch_size * heads,
        training,
    )
    return f'soft mask by {chosen.name!r}, {chosen.reason}, {num_tokens} tokens'


def count_tokens(model: nn.Module, shape: Sequence[int] | None = None) -> int:
    """Of an image of (height, width); by default of a training crop."""
    backbone: Any = next(
        (m for m in model.modules() if hasattr(m, 'patch_embed')), None
    )
    if backbone is None:
        return 0
    shape = shape or getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    if not shape:  # the positional embedding's
        return math.prod(backbone.grid_size) + 1
    patch = backbone.patch_embed.proj.stride
    return math.prod(-(-side // p) for side, p in zip(shape, patch, strict=True)) + 1
