"""Log what a training run is about to do, in one block before its first iteration."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dataset import ConcatDataset
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner, find_latest_checkpoint
from mmseg.datasets import BaseSegDataset
from torch import nn

from illama_seg.apis.consistency import doubts
from illama_seg.apis.runs.batches import fitting_rate, recipe_batch
from illama_seg.checkpoints import LoadReport
from illama_seg.datasets.lists import has_list
from illama_seg.engine import (
    RehearsalHook,
    ResumeHook,
    SeededDataset,
    training_precision,
)
from illama_seg.engine.schedule import updates_every
from illama_seg.layers import (
    Linear,
    PatchEmbed,
    SelfAttention,
    automatic_implementation,
    automatic_product,
)
from illama_seg.machine import choices
from illama_seg.machine.threads import describe_wait_policy


@HOOKS.register_module()
class OverviewHook(Hook):
    """Log :func:`describe_run`, after all that mmengine logs before a training."""

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Log the block and doubts; share the main process's measurements."""
        training_precision(runner.optim_wrapper)
        block = describe_run(runner) if is_main_process() else ''
        made = [choices.made()]
        broadcast_object_list(made)
        if is_main_process():
            runner.logger.info('\n%s', block)
            for text in doubts(runner.cfg):
                runner.logger.warning(text)
            if text := _complete(runner):
                runner.logger.warning(text)
        else:
            choices.resume(made[0])


def _complete(runner: Runner) -> str:
    """Say that nothing is left to train, and how to go on; '' where something is."""
    train = runner.cfg.get('train_cfg') or {}
    by_epoch = 'max_epochs' in train
    key, unit = ('max_epochs', 'epoch') if by_epoch else ('max_iters', 'iteration')
    length = train.get(key)
    if not length or (done := runner.epoch if by_epoch else runner.iter) < length:
        return ''
    return (
        f'this training is complete, {unit} {done} of train_cfg.{key}={length}: '
        f'nothing is left to do. To go on, set train_cfg.{key} and the end of the '
        'last param_scheduler higher'
    )


def describe_run(runner: Runner) -> str:
    """Describe data, batch, learning rate, weights, precision, devices and the like.

    Args:
        runner: built, its weights loaded, at its first iteration.

    Returns:
        A block of lines, ruled above and below.
    """
    model: Any = runner.model
    model = model.module if is_model_wrapper(model) else model
    precision = training_precision(runner.optim_wrapper)
    images = runner.train_dataloader.batch_size or 1
    tokens = count_tokens(model)
    rows = {'train data': _data(runner.train_dataloader)}
    if runner.val_loop:
        rows['val data'] = _data(runner.val_dataloader)
    rows |= {
        'batch': _batch(runner, images),
        'learning rate': _learning_rate(runner, images),
        'weights': _weights(runner, model),
        **_trained(model),
        'precision': precision.reason,
        'devices': _devices(runner),
        'attention': describe_attention(
            model, precision.dtype, tokens, images, training=True
        ),
        **describe_linear_layers(model, precision.dtype, runner.cfg.get('compile')),
    }
    for hook in runner.hooks:
        if isinstance(hook, RehearsalHook) and hook.summary:
            rows['rehearsal'] = hook.summary
    rule = '-' * 72
    lines = [f'{name:<15}{text}' for name, text in rows.items()]
    return '\n'.join([rule, *lines, rule])


def _data(loader: Any) -> str:
    dataset = loader.dataset
    if isinstance(dataset, SeededDataset):
        dataset = dataset.dataset
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    places = ' and '.join(map(_place, parts))
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    return f'{len(dataset):,} images, {len(classes)} classes: {places}'


def _place(dataset: Any) -> str:
    """Return the list of a data set's images, else their folder."""
    if isinstance(dataset, BaseSegDataset) and has_list(dataset):
        return dataset.ann_file
    folder = getattr(dataset, 'data_prefix', {}).get('img_path') or ''
    return folder or getattr(dataset, 'data_root', '') or type(dataset).__name__


def _batch(runner: Runner, images: int) -> str:
    counts, recipe = updates_every(runner.optim_wrapper), recipe_batch(runner.cfg)
    total = runner.world_size * images * counts
    unit = 'GPU' if torch.cuda.is_available() else 'process'
    text = (
        f'{runner.world_size} {unit} x {images} images x {counts} accumulated = {total}'
    )
    length = (runner.cfg.get('train_cfg') or {}).get('max_iters')
    if counts > 1 and length:
        text += f' ({length:,} iterations are {-(-length // counts):,} updates)'
    if recipe is None:
        return text
    return f"{text}, {'' if total == recipe else 'NOT '}the recipe's {recipe}"


def _learning_rate(runner: Runner, images: int) -> str:
    rates = _highest_rates(runner)
    low, high = min(rates), max(rates)
    text = f'{high:.4g}' if math.isclose(low, high) else f'{low:.4g} to {high:.4g}'
    if runner._resume and runner._has_loaded:
        hooks = (h for h in getattr(runner, 'hooks', ()) if isinstance(h, ResumeHook))
        changed = any('lr' in hook.changes.options for hook in hooks)
        return f'{text}, {"as set for this resumed run" if changed else "as resumed"}'
    cfg = runner.cfg
    total = runner.world_size * images * updates_every(runner.optim_wrapper)
    recipe, fits = recipe_batch(cfg), fitting_rate(cfg, total)
    if fits is None or recipe is None or total == recipe:
        return text
    rate = cfg.optim_wrapper.optimizer.lr
    if cfg.auto_scale_lr.get('enable'):
        rate *= total / recipe
    base = f"linear scaling of the recipe's {cfg.auto_scale_lr.base_lr:.4g} for"
    if math.isclose(rate, fits, rel_tol=0.01):
        return f'{text}, by {base} {recipe}'
    return (
        f'{text}; {base} {recipe} gives {fits:.4g}: set auto_scale_lr.enable=True, or '
        f'optim_wrapper.optimizer.lr={fits:.4g}'
    )


def _highest_rates(runner: Runner) -> list[float]:
    """List the rate that each parameter group's schedule starts from."""
    groups = runner.optim_wrapper.optimizer.param_groups
    schedulers = runner.param_schedulers
    for scheduler in schedulers if isinstance(schedulers, list) else ():
        if scheduler.param_name == 'lr':
            # mmengine appends one for its log, which it does not scale.
            return scheduler.base_values[: len(groups)]
    return [group.get('initial_lr', group['lr']) for group in groups]


def _weights(runner: Runner, model: nn.Module) -> str:
    if runner._resume and runner._has_loaded:
        # mmengine keeps no record of the file it loaded.
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        return f'resumed from {path}, at iteration {runner.iter:,}'
    start = f'nothing to resume in {runner.work_dir}; ' if runner._resume else ''
    reports = [getattr(module, 'load_report', None) for module in model.modules()]
    if runner._load_from:
        reports = reports[:1]  # the whole model's, of InitialWeightsHook
    loaded = [report.summary for report in reports if isinstance(report, LoadReport)]
    unknown = f'from {runner._load_from}' if runner._load_from else 'from scratch'
    return start + ('; '.join(loaded) or unknown)


def _trained(model: nn.Module) -> dict[str, str]:
    """Count the parameters that are trained, where some are not."""
    counts = []
    for module in (model, getattr(model, 'backbone', model)):
        parameters = list(module.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        counts.append((trained, sum(p.numel() for p in parameters)))
    (trained, total), (part, backbone) = counts
    if trained == total:
        return {}
    return {
        'trained': f'{trained:,} of {total:,} parameters; of the backbone {part:,} of '
        f'{backbone:,}, {part / max(1, backbone):.1%}'
    }


def _devices(runner: Runner) -> str:
    if not torch.cuda.is_available():
        return (
            f'{choices.device_name("cpu")}, {torch.get_num_threads()} threads on '
            f'{os.cpu_count()} cores, {describe_wait_policy()}'
        )
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    idle = torch.cuda.device_count() - runner.world_size
    text = f'{runner.world_size} x {card.name}, {card.total_memory / 2**30:.0f} GiB'
    return f'{text}; {idle} more are idle' if idle and runner.world_size == 1 else text


def describe_attention(
    model: nn.Module,
    dtype: torch.dtype,
    num_tokens: int,
    batch_size: int,
    training: bool,
) -> str:
    """Name the mask and implementation that a model's attention takes for a batch."""
    layer = next((m for m in model.modules() if isinstance(m, SelfAttention)), None)
    if layer is None:
        return 'not of this package'
    if layer.mask != 'soft':
        return f'{layer.mask}, scaled_dot_product_attention, {num_tokens} tokens'
    if layer.impl != 'auto':
        return f'soft mask by {layer.impl!r}, {num_tokens} tokens'
    weight, heads = layer.qkv.weight, layer.num_heads
    chosen = automatic_implementation(
        weight.device.type,
        dtype,
        weight.shape[1] // heads,
        num_tokens=num_tokens,
        num_heads=batch_size * heads,
        training=training,
    )
    return f'soft mask by {chosen.name!r}, {chosen.reason}, {num_tokens} tokens'


def describe_linear_layers(
    model: nn.Module, dtype: torch.dtype, compiled: Any = False, training: bool = True
) -> dict[str, str]:
    """Name how linear layers are computed, where there is a choice.

    Measures what the processes of a distributed run then share.
    """
    layers = [module for module in model.modules() if isinstance(module, Linear)]
    on = {layer.weight.device.type for layer in layers}
    if dtype != torch.float32 or compiled or on != {'cpu'}:
        return {}
    of_inference = automatic_product(training=False)
    if not training or not any(layer.weight.requires_grad for layer in layers):
        return {'linear layers': f'by {of_inference.name}, {of_inference.reason}'}
    chosen = automatic_product(training=True)
    return {'linear layers': f'by {chosen.name}, {chosen.reason}'}


def count_tokens(model: nn.Module, shape: Sequence[int] | None = None) -> int:
    """Count the tokens of an image of (height, width), by default a training crop.

    A model with a backbone of another package has 0.
    """
    backbones = (
        m
        for m in model.modules()
        if isinstance(getattr(m, 'patch_embed', None), PatchEmbed)
    )
    backbone: Any = next(backbones, None)
    if backbone is None:
        return 0
    shape = shape or getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    if not shape:  # the positional embedding's
        return math.prod(backbone.grid_size) + 1
    patch = backbone.patch_embed.proj.stride
    return math.prod(-(-side // p) for side, p in zip(shape, patch, strict=True)) + 1
