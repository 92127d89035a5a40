"""Parts of a segmentor's config that contradict each other, or the classes of the data.

Each rule yields a sentence for each contradiction, with the option that fixes it.

Over 300 lines: one rule after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from illama_seg.datasets.values import pipeline_of
from illama_seg.layers.architectures import resolve_arch

HEADS = 'decode_head', 'auxiliary_head'
OURS = 'ILLaMA', 'QuantizedILLaMA'
# Defaults of the backbones.
OUT_INDICES = dict.fromkeys(OURS, (3, 5, 7, 11)) | {'TimmFeatures': (0, 1, 2, 3)}
PADDING = 'SegDataPreProcessor', 'BandsPreProcessor'
MOST_CLASSES = 255  # 0 to 254
Classes = Mapping[str, Sequence[str]]


def heads(cfg: Config, classes: Classes) -> Iterator[str]:
    """Classes, channels and losses of each head, and the label that is ignored."""
    for option, head in named(cfg.model, HEADS, 'model'):
        if 'num_classes' not in head:
            continue
        count = head['num_classes']
        channels = head.get('out_channels') or count
        losses = listed(head.get('loss_decode') or [])
        sigmoid = any(loss.get('use_sigmoid') for loss in losses)
        key = f'{option}.num_classes'
        for split, names in classes.items():
            if names and len(names) != count:
                yield (
                    f'{key}={count}, but the {split} data set names {len(names)} '
                    f'classes: set {key}={len(names)}'
                )
        if count > MOST_CLASSES:
            yield (
                f'{key}={count}, but annotations and label images have 8 bits, of '
                f'which 255 is not annotated: set {key}={MOST_CLASSES} or less'
            )
        if not is_per_pixel(head):
            continue
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


def is_per_pixel(head: Mapping) -> bool:
    """Return whether a head has mmseg's loss of each pixel, unlike Mask2Former's."""
    kind = head.get('type')
    kind = MODELS.get(kind) if kind and isinstance(kind, str) else kind
    method = 'loss_by_feat'
    return not kind or getattr(kind, method, 0) is getattr(BaseDecodeHead, method)


def losses(cfg: Config, classes: Classes) -> Iterator[str]:
    """Options of a loss that mmseg leaves out or cannot compute together."""
    for option, head in named(cfg.model, HEADS, 'model'):
        if not is_per_pixel(head):
            continue
        channels = head.get('out_channels') or head.get('num_classes', 1)
        for key, loss in named(head, ('loss_decode',), option):
            name, kind = loss.get('loss_name'), loss.get('type') or ''
            if name is not None and 'loss' not in name:
                yield (
                    f'{key}.loss_name={name!r} is logged, but not trained on: only '
                    f'names with "loss" are added up: set {key}.loss_name=loss_{name}'
                )
            if kind.split('.')[-1] != 'CrossEntropyLoss' or not loss.get(
                'class_weight'
            ):
                continue
            if loss.get('use_sigmoid') and channels > 1:
                yield (
                    f'{key}.class_weight with use_sigmoid=True weights columns of the '
                    f'image, not its {channels} classes: set {key}.use_sigmoid=False'
                )
            elif (
                loss.get('avg_non_ignore')
                and not loss.get('use_sigmoid')
                and loss.get('reduction', 'mean') == 'mean'
            ):
                yield (
                    f'{key}.avg_non_ignore=True fails in mmseg beside class_weight, '
                    'which averages over the annotated pixels anyway: set '
                    f'{key}.avg_non_ignore=False'
                )


def ignored_labels(cfg: Config, classes: Classes) -> Iterator[str]:
    """The label that each head ignores: in the metrics, the padding, the data."""
    padding = cfg.model.get('data_preprocessor') or {}
    for option, head in named(cfg.model, HEADS, 'model'):
        label = head.get('ignore_index', 255)
        ours = f'{option}.ignore_index={label}'
        for name, metric in named(cfg, ('val_evaluator', 'test_evaluator')):
            found = metric.get('ignore_index', 255)
            if metric.get('type') == 'IoUMetric' and found != label:
                yield f'{name}.ignore_index={found}, but {ours}: set the same in both'
        found = padding.get('seg_pad_val', 255)
        if padding.get('type') in PADDING and found != label:
            yield (
                f'model.data_preprocessor.seg_pad_val={found}, but {ours}: the loss '
                f'would not ignore padding: set model.data_preprocessor.seg_pad_val='
                f'{label}'
            )
        for split in classes:
            dataset: Any = cfg[f'{split}_dataloader'].get('dataset') or {}
            if dataset.get('reduce_zero_label') and label != 255:
                yield (
                    f'{split}_dataloader.dataset.reduce_zero_label=True makes label 0 '
                    f'255, but {ours}: set {option}.ignore_index=255'
                )


def annotation_classes(cfg: Config, classes: Classes) -> Iterator[str]:
    """Classes that the check of the annotations knows, and those of both splits."""
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
    train, val = classes.get('train', ()), classes.get('val', ())
    if len(train) == len(val):
        for number, (ours, theirs) in enumerate(zip(train, val, strict=True)):
            if ours != theirs:
                yield (
                    f'class {number} is {ours!r} in the train data set, {theirs!r} in '
                    'the val data set: set the same val_dataloader.dataset.metainfo'
                )
                return


def levels(cfg: Config, classes: Classes) -> Iterator[str]:
    """Channels and levels that the backbone hands on to neck and heads."""
    backbone, neck = cfg.model.get('backbone') or {}, cfg.model.get('neck') or {}
    channels = channels_of(backbone)
    if not channels or neck.get('type') not in (None, 'Feature2Pyramid'):
        return
    places = range(len(channels))
    rescales = neck.get('rescales', (4, 2, 1, 0.5))
    same = len({*channels}) == 1
    hands_on = f'the backbone hands on {channels[0] if same else channels} channels'
    indices = backbone.get('out_indices', OUT_INDICES[backbone['type']])
    outputs = f'model.backbone.out_indices={indices} are {len(places)} levels'
    if neck and any(neck.get('embed_dim') != width for width in channels):
        fix = f'model.neck.embed_dim={channels[0]}' if same else 'model.neck=None'
        yield f'model.neck.embed_dim={neck.get("embed_dim")}, but {hands_on}: set {fix}'
    if neck and len(rescales) != len(places):
        yield (
            f'{outputs}, but model.neck.rescales={rescales}: set as many in '
            'model.neck.rescales'
        )
    for option, head in named(cfg.model, HEADS, 'model'):
        given, index = head.get('in_channels'), head.get('in_index', -1)
        taken = listed(index)
        if any(i not in places and i + len(places) not in places for i in taken):
            yield (
                f'{option}.in_index={index}, but {outputs}: set '
                f'{option}.in_index from 0 to {len(places) - 1}'
            )
            continue
        fitting = [channels[i] for i in taken]
        numbers = listed(given) if given else fitting
        if numbers != fitting and (
            len(numbers) == len(fitting) or not {*numbers} <= {*channels}
        ):
            fix = str(fitting[0] if isinstance(given, int) else fitting)
            yield (
                f'{option}.in_channels={given}, but {hands_on}: set '
                f'{option}.in_channels={fix.replace(" ", "")}'
            )


def channels_of(backbone: Mapping) -> list[int]:
    """Return the channels of each map of a backbone of this package, else nothing."""
    if backbone.get('type') == 'TimmFeatures':
        with torch.device('meta'):
            built: Any = MODELS.build({**backbone, 'init_cfg': None})
        return built.channels
    if backbone.get('type') not in OURS:
        return []
    width, *_ = resolve_arch(backbone.get('arch', 'base'))
    return [width] * len(listed(backbone.get('out_indices', OUT_INDICES['ILLaMA'])))


def queries(cfg: Config, classes: Classes) -> Iterator[str]:
    """Heads and necks that would take the tokens of queries for a map."""
    backbone, neck = cfg.model.get('backbone') or {}, cfg.model.get('neck') or {}
    if backbone.get('type') not in OURS or not backbone.get('num_queries'):
        return
    count = backbone['num_queries']
    maps = len(listed(backbone.get('out_indices', OUT_INDICES[backbone['type']])))
    tokens = f'the {count} tokens of model.backbone.num_queries={count}'
    if neck:
        yield (
            f'model.neck ({neck.get("type")}) takes maps, not {tokens}: set model.neck='
            'None, or model.backbone.num_queries=0'
        )
        return
    for option, head in named(cfg.model, HEADS, 'model'):
        if head.get('type') == 'ClassTokenHead':
            continue
        if {-1, maps} & set(listed(head.get('in_index', -1))):
            yield (
                f'{option}.in_index={head.get("in_index", -1)} ({head.get("type")}) '
                f'are {tokens}: set {option}.in_index={maps - 1} for the last map, or '
                'model.backbone.num_queries=0'
            )


def bands(cfg: Config, classes: Classes) -> Iterator[str]:
    """Compare the preprocessor and the augmentation with the number of channels."""
    takes = cfg.model.get('backbone', {}).get('in_channels', 3)
    preprocessor: Any = cfg.model.get('data_preprocessor') or {}
    key, kind = 'model.data_preprocessor', preprocessor.get('type')
    mean, std = (preprocessor.get(name) or [] for name in ('mean', 'std'))
    if len(mean) != len(std):
        yield f'{key}.mean has {len(mean)} numbers, {key}.std {len(std)}: set as many'
    elif mean and len(mean) not in (1, takes):
        more = '' if takes in (1, 3) else f', and {key}.type=BandsPreProcessor'
        yield (
            f'{key}.mean has {len(mean)} numbers, but model.backbone.in_channels='
            f'{takes}: set one number for each channel in mean and std{more}'
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


def preprocessor(cfg: Config) -> Iterator[str]:
    """A preprocessor beside the model's own, which mmengine does not look at."""
    beside = cfg.get('data_preprocessor') or {}
    own = cfg.get('model', {}).get('data_preprocessor')
    for key, value in beside.items() if own else ():
        if own.get(key) != value:
            yield (
                f'data_preprocessor.{key}={value} has no effect beside '
                f'model.data_preprocessor.{key}={own.get(key)}: write '
                'model=dict(data_preprocessor=data_preprocessor), or leave it out'
            )


def windows(cfg: Config, classes: Classes) -> Iterator[str]:
    """Windows of the inference, which must leave no gap."""
    settings = cfg.model.get('test_cfg') or {}
    if settings.get('mode') != 'slide':
        return
    for key in ('crop_size', 'stride'):
        found = settings.get(key)
        if not isinstance(found, list | tuple) or len(found) != 2 or min(found) < 1:
            yield (
                f"model.test_cfg.mode='slide' with {key}={found}: set "
                f"model.test_cfg.{key}=(HEIGHT,WIDTH), or model.test_cfg.mode='whole'"
            )
            return
    crop, stride = settings['crop_size'], settings['stride']
    if any(step > side for step, side in zip(stride, crop, strict=True)):
        yield (
            f'model.test_cfg.stride={stride}, but model.test_cfg.crop_size={crop}: '
            'pixels between the windows are skipped: set '
            f'model.test_cfg.stride=({crop[0]},{crop[1]}) or less'
        )


def named(
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


def listed(value: Any) -> list[Any]:
    """A value, or the values of a list."""
    return [*value] if isinstance(value, list | tuple) else [value]


RULES = (
    heads,
    losses,
    ignored_labels,
    annotation_classes,
    levels,
    queries,
    bands,
    windows,
)
