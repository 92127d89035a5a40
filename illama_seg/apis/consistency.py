"""Parts of a config that contradict each other, or the classes of the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from illama_seg.datasets.values import pipeline_of

# Scores that mmseg's IoUMetric returns for each of its iou_metrics.
SCORES = {
    'mIoU': ('aAcc', 'mIoU', 'mAcc'),
    'mDice': ('aAcc', 'mDice', 'mAcc'),
    'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall'),
}


def contradictions(cfg: Config, classes: Mapping[str, Sequence[str]]) -> list[str]:
    """List what cannot be meant in a segmentation's config, with the fix of each.

    Args:
        cfg: config of a segmentation.
        classes: split -> names of the classes of its data set. What concerns a training
            only is looked at where 'train' is among the splits.

    Returns:
        One sentence for each contradiction.
    """
    found = [*_heads(cfg, classes), *_annotations(cfg, classes), *_channels(cfg)]
    return [*found, *_sampler(cfg), *_best(cfg)] if 'train' in classes else found


def _heads(cfg: Config, classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for option, head in _named(cfg.model, ('decode_head', 'auxiliary_head'), 'model'):
        if 'num_classes' not in head:
            continue
        count = head['num_classes']
        channels = head.get('out_channels') or count
        losses = _listed(head.get('loss_decode') or [])
        sigmoid = any(loss.get('use_sigmoid') for loss in losses)
        key = f'{option}.num_classes'
        for split, names in classes.items():
            if names and len(names) != count:
                yield (
                    f'{key}={count}, but the {split} data set names {len(names)} '
                    f'classes: set {key}={len(names)}'
                )
        binary = (
            f'{key}=2 {option}.out_channels=1 {option}.loss_decode.use_sigmoid=True'
        )
        if count == 1 and not sigmoid:
            yield (
                f'{key}=1 with a softmax has nothing to learn: for an object and its '
                f'background set {binary}'
            )
        elif channels == 1 and count == 2:
            if not sigmoid:
                yield f'{option}.out_channels=1 needs a sigmoid: set {binary}'
        elif channels != count:
            yield (
                f'{option}.out_channels={channels}, but {key}={count}: leave '
                'out_channels out, or set it to 1 for two classes'
            )
        for loss in losses:
            weights = loss.get('class_weight')
            if isinstance(weights, list | tuple) and len(weights) != channels > 1:
                yield (
                    f'{option}.loss_decode.class_weight has {len(weights)} numbers, '
                    f'but {key}={count}: expected one for each class'
                )
        ignored = head.get('ignore_index', 255)
        for name, metric in _named(cfg, ('val_evaluator', 'test_evaluator')):
            found = metric.get('ignore_index', 255)
            if metric.get('type') == 'IoUMetric' and found != ignored:
                yield (
                    f'{name}.ignore_index={found}, but {option}.ignore_index='
                    f'{ignored}: set the same in both'
                )


def _annotations(cfg: Config, classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for split, names in classes.items():
        dataset: Any = cfg[f'{split}_dataloader'].get('dataset') or {}
        for number, step in enumerate(dataset.get('pipeline') or ()):
            count = step.get('num_classes')
            if step.get('type') == 'CheckAnnotations' and names and count != len(names):
                option = f'{split}_dataloader.dataset.pipeline.{number}.num_classes'
                yield (
                    f'{option}={count} (CheckAnnotations), but the {split} data set '
                    f'names {len(names)} classes: set {option}={len(names)}'
                )


def _channels(cfg: Config) -> Iterator[str]:
    """Compare the preprocessor and the augmentation with the number of channels."""
    takes = cfg.model.get('backbone', {}).get('in_channels', 3)
    preprocessor: Any = cfg.model.get('data_preprocessor') or {}
    key, kind = 'model.data_preprocessor', preprocessor.get('type')
    mean, std = (preprocessor.get(name) or [] for name in ('mean', 'std'))
    if len(mean) != len(std):
        yield f'{key}.mean has {len(mean)} numbers, {key}.std {len(std)}: set as many'
    elif mean and len(mean) not in (1, takes):
        bands = '' if takes in (1, 3) else f', and {key}.type=BandsPreProcessor'
        yield (
            f'{key}.mean has {len(mean)} numbers, but model.backbone.in_channels='
            f'{takes}: set one number for each channel in mean and std{bands}'
        )
    elif kind == 'SegDataPreProcessor' and len(mean) not in (0, 1, 3):
        yield (
            f'{key}.mean has {len(mean)} numbers, of which SegDataPreProcessor takes 1 '
            f'or 3: set {key}.type=BandsPreProcessor'
        )
    elif kind == 'SegDataPreProcessor' and takes > 3:
        for option in ('bgr_to_rgb', 'rgb_to_bgr'):
            if preprocessor.get(option):
                yield (
                    f'{key}.{option}=True does nothing to {takes} channels in '
                    f'SegDataPreProcessor: set {key}.type=BandsPreProcessor, which '
                    f'turns the first three, or {key}.{option}=False'
                )
    train: Any = cfg.get('train_dataloader') or {}
    for number, step in enumerate(pipeline_of(train.get('dataset') or {})):
        if step.get('type') == 'PhotoMetricDistortion' and takes != 3:
            option = f'train_dataloader.dataset.pipeline.{number}'
            yield (
                f'{option} (PhotoMetricDistortion) takes three channels, but '
                f'model.backbone.in_channels={takes}: leave it out'
            )


def _sampler(cfg: Config) -> Iterator[str]:
    sampler: Any = (cfg.get('train_dataloader') or {}).get('sampler') or {}
    while isinstance(sampler.get('sampler'), Mapping):
        sampler = sampler['sampler']
    loop = (cfg.get('train_cfg') or {}).get('type') or ''
    if sampler.get('type') == 'InfiniteSampler' and 'Epoch' in loop:
        yield (
            f'train_cfg.type={loop} with an InfiniteSampler never ends its first '
            'epoch: set train_dataloader.sampler to '
            "dict(type='DefaultSampler', shuffle=True), or train by iterations "
            '(ResumableIterTrainLoop)'
        )


def _best(cfg: Config) -> Iterator[str]:
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = hook.get('save_best')
    metrics = list(_named(cfg, ('val_evaluator',)))
    if (
        not wanted
        or not metrics
        or any(m.get('type') != 'IoUMetric' for _, m in metrics)
    ):
        return
    scores: list[str] = []
    for _, metric in metrics:
        prefix = f'{metric["prefix"]}/' if metric.get('prefix') else ''
        for name in metric.get('iou_metrics', ['mIoU']):
            scores += [prefix + score for score in SCORES.get(name, ())]
    for best in [wanted] if isinstance(wanted, str) else wanted:
        if best != 'auto' and best not in scores:
            yield (
                f'default_hooks.checkpoint.save_best={best!r}, but the validation '
                f'gives {", ".join(dict.fromkeys(scores))}: set one of these'
            )


def _named(
    parent: Any, keys: Sequence[str], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
    """Yield the option and the config of each part below some keys."""
    for key in keys:
        parts = parent.get(key) or []
        option = f'{prefix}.{key}' if prefix else key
        if isinstance(parts, Mapping):
            yield option, parts
        else:
            yield from ((f'{option}.{i}', part) for i, part in enumerate(parts))


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, Mapping) else list(value)
