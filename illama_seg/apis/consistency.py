"""Parts of a config that contradict each other, and what to doubt in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from illama_seg.apis import model_rules
from illama_seg.apis.mmseg_rules import dice, hard_pixels, transforms
from illama_seg.apis.model_rules import Classes, listed, named
from illama_seg.datasets.values import pipeline_of

# Scores that mmseg's IoUMetric returns for each of its iou_metrics.
SCORES = {
    'mIoU': ('aAcc', 'mIoU', 'mAcc'),
    'mDice': ('aAcc', 'mDice', 'mAcc'),
    'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall'),
}

# Keys of mmseg 0.x and what took their place. Not 'optimizer': mmseg's own configs of
# today have a variable of that name.
EARLIER_KEYS = dict(
    seed='randomness.seed',
    deterministic='randomness.deterministic',
    data='train_dataloader, val_dataloader and test_dataloader',
    optimizer_config='optim_wrapper.clip_grad and optim_wrapper.accumulative_counts',
    fp16='optim_wrapper.type=AutocastOptimWrapper',
    lr_config='param_scheduler',
    momentum_config='param_scheduler',
    runner='train_cfg.type and train_cfg.max_iters',
    total_iters='train_cfg.max_iters',
    total_epochs='train_cfg.max_epochs',
    evaluation='train_cfg.val_interval and val_evaluator',
    checkpoint_config='default_hooks.checkpoint',
    log_config='default_hooks.logger and visualizer.vis_backends',
    workflow='train_cfg.val_interval',
    resume_from='resume=True and load_from',
    dist_params='env_cfg.dist_cfg',
    cudnn_benchmark='env_cfg.cudnn_benchmark',
    gpu_ids='launcher',
)


def contradictions(cfg: Config, classes: Classes) -> list[str]:
    """List what cannot be meant in a config, with the fix of each.

    Args:
        cfg: config of a segmentation or classification.
        classes: split -> names of the classes of its data set. What concerns a training
            only is looked at where 'train' is among the splits.

    Returns:
        One sentence for each contradiction.
    """
    rules: tuple[Any, ...] = model_rules.RULES if 'decode_head' in cfg.model else ()
    segments = bool(rules)
    rules += (_workers, transforms) if segments else (_workers,)
    if 'train' in classes:
        rules += (hard_pixels, *TRAINING_RULES) if segments else TRAINING_RULES
    return [text for rule in rules for text in rule(cfg, classes)]


def doubts(cfg: Config) -> list[str]:
    """List settings of a training that do no harm but their cost, with the fix of each.

    Args:
        cfg: config of a training.

    Returns:
        One sentence for each.
    """
    return [
        text
        for rule in (_sizes, _curves, _earlier_keys, model_rules.preprocessor, dice)
        for text in rule(cfg)
    ]


def _workers(cfg: Config, classes: Classes) -> Iterator[str]:
    """Options of loaders that need processes of their own."""
    for split in classes:
        loader: Any = cfg[f'{split}_dataloader']
        if loader.get('persistent_workers') and not loader.get('num_workers'):
            key = f'{split}_dataloader'
            yield (
                f'{key}.persistent_workers=True with num_workers=0 keeps nothing: set '
                f'{key}.persistent_workers=False, or {key}.num_workers=2'
            )


def _samplers(cfg: Config, classes: Classes) -> Iterator[str]:
    """Samplers without an end where one is waited for."""
    loop = _loop(cfg)
    for split in ('train', 'val', 'test'):
        sampler: Any = (cfg.get(f'{split}_dataloader') or {}).get('sampler') or {}
        while hasattr(sampler.get('sampler'), 'get'):
            sampler = sampler['sampler']
        if sampler.get('type') != 'InfiniteSampler':
            continue
        option = f'{split}_dataloader.sampler'
        if split != 'train':
            yield (
                f'{option}.type=InfiniteSampler: the {split} loop never ends: set '
                f"{option} to dict(type='DefaultSampler', shuffle=False)"
            )
        elif 'Epoch' in loop:
            yield (
                f'train_cfg.type={loop} with an InfiniteSampler never ends its first '
                f"epoch: set {option} to dict(type='DefaultSampler', shuffle=True), or "
                'train by iterations (ResumableIterTrainLoop)'
            )


def _epochs(cfg: Config, classes: Classes) -> Iterator[str]:
    """Settings that count epochs, where a loop of iterations has but one."""
    if 'Iter' not in (loop := _loop(cfg)):
        return
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if hook.get('interval', -1) > 0 and hook.get('by_epoch', True):
        yield (
            f'default_hooks.checkpoint.interval={hook["interval"]} counts epochs, and '
            f'{loop} has one: nothing would be saved before the end: set '
            'default_hooks.checkpoint.by_epoch=False'
        )
    for option, step in named(cfg, ('param_scheduler',)):
        by_epoch = step.get('by_epoch', True) and not step.get('convert_to_iter_based')
        # What waits for a plateau steps after each validation.
        if by_epoch and 'Plateau' not in step.get('type', 'Plateau'):
            yield (
                f'{option}.by_epoch=True counts epochs, and {loop} has one: it would '
                f'never change: set {option}.by_epoch=False, its begin and end in '
                'iterations'
            )


def _lengths(cfg: Config, classes: Classes) -> Iterator[str]:
    """Keys of a loop that a config with another kind of loop has left there."""
    train: Any = cfg.get('train_cfg') or {}
    kind, by_epoch = train.get('type'), train.get('by_epoch')
    both = 'max_iters' in train and 'max_epochs' in train
    if not (both or (kind and by_epoch is not None)):
        return
    epochs = by_epoch if by_epoch is not None else 'Epoch' in (kind or '')
    loop, key = ('Epoch', 'max_epochs') if epochs else ('Iter', 'max_iters')
    yield (
        f'train_cfg={dict(train)}: a loop takes type or by_epoch, and max_iters or '
        'max_epochs, not both; one may come from _base_: set train_cfg=dict('
        f"_delete_=True, type='Resumable{loop}TrainLoop', {key}="
        f'{train.get(key, "...")}, val_interval={train.get("val_interval", 1)})'
    )


def _never(cfg: Config, classes: Classes) -> Iterator[str]:
    """Settings that never come into effect."""
    train: Any = cfg.get('train_cfg') or {}
    length = train.get('max_iters') or train.get('max_epochs')
    begin = train.get('val_begin', 1)
    if length and cfg.get('val_dataloader') and begin > length:
        yield (
            f'train_cfg.val_begin={begin}, but the training ends at {length}: nothing '
            f'would be validated: set train_cfg.val_begin={length} or less'
        )
    counts = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if counts > 1 and cfg.get('effective_batch') is not None:
        yield (
            f'optim_wrapper.accumulative_counts={counts} has no effect beside '
            f'effective_batch={cfg.effective_batch}: set '
            'optim_wrapper.accumulative_counts=1, or effective_batch=None'
        )


def _best(cfg: Config, classes: Classes) -> Iterator[str]:
    """The best checkpoint's score, which the validation must give."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    metrics = [metric for _, metric in named(cfg, ('val_evaluator',))]
    kinds = {metric.get('type') for metric in metrics}
    if not metrics or not kinds <= {'IoUMetric', 'Accuracy'}:
        return
    scores = [score for metric in metrics for score in _scores(metric)]
    for best in listed(hook.get('save_best') or []):
        if best != 'auto' and best not in scores:
            yield (
                f'default_hooks.checkpoint.save_best={best!r}, but the validation '
                f'gives {", ".join(dict.fromkeys(scores))}: set one of these'
            )


def _scores(metric: Any) -> Iterator[str]:
    is_iou = metric['type'] == 'IoUMetric'
    prefix = metric.get('prefix') or ('' if is_iou else 'accuracy')
    names = [f'top{k}' for k in listed(metric.get('topk', (1, 5)))]
    if is_iou:
        kinds = listed(metric.get('iou_metrics', 'mIoU'))
        names = [name for kind in kinds for name in SCORES.get(kind, ())]
    yield from (f'{prefix}/{name}' if prefix else name for name in names)


TRAINING_RULES = _lengths, _samplers, _epochs, _never, _best


def _sizes(cfg: Config) -> Iterator[str]:
    """Sizes in pixels that a crop, its padding and the positions are made for."""
    model, loader = cfg.get('model') or {}, cfg.get('train_dataloader') or {}
    steps = pipeline_of(loader.get('dataset') or {})
    sides = [step.get('crop_size') or step.get('input_size') for step in steps]
    crop = next((_pair(size) for size in reversed(sides) if size), None)
    if crop is None:
        return
    made, fitting = f'but the crops are {crop}', f'({crop[0]},{crop[1]})'
    if size := (model.get('data_preprocessor') or {}).get('size'):
        size = _pair(size)
        height, width = map(max, size, crop)
        costs = height * width / (crop[0] * crop[1])
        effect = 'an image smaller than its crop is not padded to it, and fits no batch'
        if costs > 1:
            effect = f'each is padded to {costs:.3g} times its pixels'
        if size != crop:
            yield (
                f'model.data_preprocessor.size={size}, {made}: {effect}: set '
                f'model.data_preprocessor.size={fitting}'
            )
    backbone = model.get('backbone') or {}
    size = (
        backbone.get('img_size') if backbone.get('type') in model_rules.OURS else crop
    )
    if size and _pair(size) != crop:
        yield (
            f'model.backbone.img_size={size}, {made}: positions are interpolated in '
            f'every iteration: set model.backbone.img_size={fitting}'
        )


def _curves(cfg: Config) -> Iterator[str]:
    """The axis of the curves."""
    hook = (cfg.get('default_hooks') or {}).get('logger') or {}
    if 'Iter' in _loop(cfg) and hook.get('log_metric_by_epoch', True):
        yield (
            f'{_loop(cfg)} has one epoch, so every validation is logged at the same '
            'place: set default_hooks.logger.log_metric_by_epoch=False'
        )


def _earlier_keys(cfg: Config) -> Iterator[str]:
    """Keys of mmseg before 1.0, which mmengine leaves alone."""
    for key, successor in EARLIER_KEYS.items():
        if cfg.get(key) is not None:
            yield f'{key} has no effect since mmseg 1.0: set {successor}'


def _loop(cfg: Config) -> str:
    train: Any = cfg.get('train_cfg') or {}
    if 'type' not in train and 'by_epoch' in train:
        return 'EpochBasedTrainLoop' if train['by_epoch'] else 'IterBasedTrainLoop'
    return train.get('type') or ''


def _pair(size: Any) -> tuple[int, int]:
    """(height, width) of a size, which may be a number for both."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
