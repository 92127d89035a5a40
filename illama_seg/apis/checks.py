"""Checks of a run before its first iteration: data, weights, schedule, batch."""

from __future__ import annotations

import os
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from illama_seg.apis.consistency import contradictions
from illama_seg.apis.dataset_checks import (
    check_class_names,
    check_images,
    check_masks,
    check_names,
    check_zero_labels,
)
from illama_seg.apis.model_rules import named
from illama_seg.apis.runs.processes import VARIABLES
from illama_seg.apis.user_errors import options_explained
from illama_seg.checkpoints import Checkpoint, open_checkpoint
from illama_seg.engine.long_runs.accumulation import iterations_to_update
from illama_seg.errors import UserError
from illama_seg.pretrain import check_classes, check_topk


def check_data(cfg: Config, splits: tuple[str, ...]) -> dict[str, Any]:
    """Build and list the data sets, which finds missing folders and annotations.

    Returns:
        Split -> data set, for the splits that the config has.
    """
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    classes, datasets = {}, {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            check_class_names(loader.dataset, f'{split}_dataloader.dataset')
            with options_explained(cfg):
                dataset = _built(loader.dataset, split)
            print_log(f'{split} data: {len(dataset)} images', logger='current')
            classes[split] = dataset.metainfo.get('classes') or ()
            metrics = named(cfg, (f'{split}_evaluator',))
            if not classes[split] and any(
                metric.get('type') == 'IoUMetric' for _, metric in metrics
            ):
                check_names(dataset, f'{split}_dataloader.dataset')
            datasets[split] = dataset
            if split == 'train':
                check_masks(dataset)
                check_whole_batch(cfg, len(dataset))
            if 'decode_head' in cfg.model:
                check_images(dataset, split, cfg)
    check_zero_labels(cfg, datasets)
    if 'head' in cfg.model:
        check_classes(cfg.model.head.num_classes, classes)
        for split in splits:
            option = f'{split}_evaluator'
            check_topk(option, cfg.get(option), cfg.model.head.num_classes)
    if found := contradictions(cfg, classes):
        raise UserError('the config contradicts itself:\n  ' + '\n  '.join(found))
    return datasets


def _built(settings: Any, split: str) -> Any:
    """Build a data set; name the option where mmengine has nothing to store.

    Raises:
        UserError: names the data set.
    """
    try:
        return DATASETS.build(settings)
    except ValueError as error:
        if 'lazy_init' in settings or _has_samples(settings):
            raise
        raise UserError(
            f'{split}_dataloader.dataset has no image: set its data_root, data_prefix '
            'or img_suffix'
        ) from error


def _has_samples(settings: Any) -> bool:
    """Return whether a data set that could not be built lists any file."""
    dataset = DATASETS.build({**settings, 'lazy_init': True})
    return not hasattr(dataset, 'load_data_list') or bool(dataset.load_data_list())


def check_whole_batch(cfg: Config, num_images: int) -> None:
    """Refuse a data set of which no batch is left, where incomplete ones are dropped.

    Raises:
        UserError: names batch size and number of images.
    """
    loader: Any = cfg.train_dataloader
    sampler: Any = loader.get('sampler') or {}
    sampler = sampler.get('sampler') or sampler
    of_process = -(-num_images // _num_processes(cfg))
    if (
        loader.get('drop_last')
        and sampler.get('type') != 'InfiniteSampler'
        and loader.get('batch_size', 1) > of_process
    ):
        raise UserError(
            f'train_dataloader.drop_last=True leaves no batch of {loader.batch_size} '
            f'images: a process has {of_process} of {num_images} images: set '
            f'train_dataloader.batch_size={of_process} or less'
        )


def check_pretrained(cfg: Config) -> list[Checkpoint]:
    """Open the checkpoints now, not after the model is built.

    They are not read again while the caller holds them.

    Raises:
        MissingFileError, ConnectionError, UserError: see ``open_checkpoint``; names the
            option too.
    """
    sources = {'load_from': cfg.load_from} if cfg.get('load_from') else {}
    for name, module in (('model', cfg.model), ('model.backbone', cfg.model.backbone)):
        init_cfgs = module.get('init_cfg') or []
        for init_cfg in init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]:
            if isinstance(init_cfg, dict) and init_cfg.get('checkpoint'):
                sources[f'{name}.init_cfg'] = init_cfg['checkpoint']
    opened = []
    for option, source in sources.items():
        try:
            opened.append(open_checkpoint(source))
        except (ConnectionError, UserError) as error:
            file = 'load_from' if option == 'load_from' else f'{option}.checkpoint'
            raise type(error)(
                f'{str(error).rstrip(".")}. The file is {file}; to train without it, '
                f'set {option}=None'
            ) from error
    return opened


def check_schedule(cfg: Config) -> None:
    """Refuse an effective batch or a schedule that is impossible; warn of its length.

    Raises:
        UserError: names the parameter.
    """
    if cfg.get('effective_batch') is not None:
        images = cfg.train_dataloader.batch_size
        iterations_to_update(cfg.effective_batch, _num_processes(cfg), images)
    by_epoch = 'max_epochs' in cfg.train_cfg
    key, unit = ('max_epochs', 'epochs') if by_epoch else ('max_iters', 'iterations')
    length, ends = cfg.train_cfg.get(key), {}
    for option, step in named(cfg, ('param_scheduler',)):
        if length and step.get('by_epoch', True) == by_epoch:
            _check_turning_points(option, step, length, unit)
        if step.get('end', float('inf')) <= step.get('begin', 0):
            raise UserError(
                f'{option} ends at iteration {step.end}, before it begins, at '
                f'{step.begin}: set {option}.begin and .end'
            )
        if step.get('by_epoch', True) == by_epoch:
            ends[option] = step.get('end', length)  # as mmengine does
    if length and ends and max(ends.values()) != length:
        last = max(ends, key=lambda option: ends[option])
        print_log(
            f'train_cfg.{key}={length}, but the learning rate is scheduled for '
            f'{ends[last]} {unit}. To fit it, set {last}.end={length} (and a shorter '
            'warmup: param_scheduler.0.end, param_scheduler.1.begin)',
            logger='current',
            level=30,
        )


def _check_turning_points(option: str, step: Any, length: int, unit: str) -> None:
    """Warn of a cosine of another length than its part of the training, and the like.

    An explicit end that differs from the training's is warned of beside this.
    """
    span = min(step.get('end', length), length) - step.get('begin', 0)
    text, period = '', step.get('T_max')
    if period is not None and period != span:
        does = 'does not reach its end' if period > span else 'rises again after it'
        text = (
            f'{option}.T_max={period}, but it acts for {span} {unit}: the learning '
            f'rate {does}: set {option}.T_max={span}'
        )
    milestones = step.get('milestones') or ()
    late = [point for point in milestones if point >= span]
    if late:
        text = (
            f'{option}.milestones={list(milestones)}, but it acts for {span} {unit}: '
            f'{late[0]} is never reached: set {option}.milestones below {span}'
        )
    if text:
        print_log(text, logger='current', level=30)


def _num_processes(cfg: Config) -> int:
    """From the launcher's variable: mmengine has not started the processes yet."""
    _, variable, _ = VARIABLES.get(cfg.get('launcher', 'none'), ('', '', ''))
    return int(os.environ.get(variable, get_world_size()))


def check_batch_norm(runner: Runner, cfg: Config, num_images: int) -> None:
    """Refuse a batch of one image for batch normalisation after pooling to one pixel.

    Also where the last batch of an epoch is left with one.

    Raises:
        UserError: names the option to set.
    """
    loader: Any = cfg.train_dataloader
    sampler: Any = loader.get('sampler') or {}
    sampler = sampler.get('sampler') or sampler
    size = loader.get('batch_size') or 1
    of_process = -(-num_images // _num_processes(cfg))
    is_left = (
        size > 1
        and of_process % size == 1
        and not loader.get('drop_last')
        and sampler.get('type') != 'InfiniteSampler'
    )
    if size > 1 and not is_left:
        return
    synced = (nn.SyncBatchNorm,) if runner.world_size > 1 else ()
    for branch in runner.model.modules():
        if not isinstance(branch, nn.Sequential):
            continue
        pools = [m for m in branch if isinstance(m, nn.AdaptiveAvgPool2d)]
        norms = [m for m in branch.modules() if isinstance(m, _BatchNorm)]
        if any(pool.output_size in (1, (1, 1)) for pool in pools) and any(
            not isinstance(norm, synced) for norm in norms
        ):
            needs = "batch normalisation after the decoder's pooling needs two"
            if size > 1:
                raise UserError(
                    f'{of_process} images in batches of {size} leave one image in the '
                    f'last batch of each epoch, but {needs}: set '
                    'train_dataloader.drop_last=True, or another '
                    'train_dataloader.batch_size'
                )
            raise UserError(
                f'a process gets one image, but {needs}: set '
                'train_dataloader.batch_size=2'
            )
