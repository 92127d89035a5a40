"""Parts of mmseg that spoil labels, count what is not annotated, or cannot run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from illama_seg.apis.model_rules import HEADS, Classes, is_per_pixel, named

MIXING = 'MultiImageMixDataset'


def transforms(cfg: Config, classes: Classes) -> Iterator[str]:
    """Steps of mmseg that mix the numbers of classes, or that need several images."""
    for split in classes:
        dataset: Any = cfg[f'{split}_dataloader'].get('dataset') or {}
        for option, part in _wrapped(dataset, f'{split}_dataloader.dataset'):
            for number, step in enumerate(part.get('pipeline') or ()):
                key, kind = f'{option}.pipeline.{number}', step.get('type')
                if kind == 'RandomRotFlip' and step.get('rotate_prob', 0.5) > 0:
                    yield (
                        f'{key} (RandomRotFlip) interpolates the labels when it '
                        'rotates: between classes 0 and 4 it writes 1, 2 and 3, and '
                        f'its corners are class 0: set {key}.rotate_prob=0, and rotate '
                        "with dict(type='RandomRotate', prob=0.5, degree=20)"
                    )
                if kind == 'RandomMosaic' and part.get('type') != MIXING:
                    yield (
                        f'{key} (RandomMosaic) needs several images: write {option}='
                        f'dict(type={MIXING!r}, dataset=..., pipeline=...), with the '
                        'data set and its loading steps in dataset, and RandomMosaic '
                        'and the steps after it in pipeline'
                    )


def _wrapped(dataset: Mapping, option: str) -> Iterator[tuple[str, Mapping]]:
    """Yield a data set and those that it wraps, with their options."""
    yield option, dataset
    for name, part in named(dataset, ('dataset', 'datasets'), option):
        yield from _wrapped(part, name)


def hard_pixels(cfg: Config, classes: Classes) -> Iterator[str]:
    """Losses of mmseg that its decode heads cannot call, or not on this machine."""
    for option, head in named(cfg.model, HEADS, 'model'):
        channels = head.get('out_channels') or head.get('num_classes', 1)
        sampler = f"{option}.sampler=dict(type='OHEMPixelSampler', thresh=0.7)"
        for key, loss in named(head, ('loss_decode',), option):
            kind = loss.get('type') or ''
            if not kind or not isinstance(kind, str) or not is_per_pixel(head):
                continue
            fix = f'set {key}.type=CrossEntropyLoss'
            if not _takes_labels(kind):
                yield (
                    f'{key} ({kind}) does not take the weight and ignore_index that a '
                    f'decode head hands on: {fix}, with {sampler} to train on hard '
                    'pixels'
                )
            elif (
                kind.split('.')[-1] == 'FocalLoss'
                and channels > 1
                and not torch.cuda.is_available()
            ):
                yield (
                    f'{key} (FocalLoss) of {channels} classes runs on a GPU only, and '
                    f'there is none: {fix}, with {sampler} to train on hard pixels'
                )


def _takes_labels(kind: str) -> bool:
    """Return whether a loss can be called as mmseg's decode heads do."""
    try:
        loss: Any = MODELS.get(kind)
        inspect.signature(loss.forward).bind(
            None, 'logits', 'labels', weight=None, ignore_index=255
        )
    except TypeError:
        return False
    except (AttributeError, RuntimeError, ValueError):  # not registered or inspectable
        pass
    return True


def dice(cfg: Config) -> Iterator[str]:
    """A loss of mmseg that does not leave out what is not annotated."""
    for option, head in named(cfg.get('model') or {}, HEADS, 'model'):
        for key, loss in named(head, ('loss_decode',), option):
            if loss.get('type') in ('DiceLoss', 'mmseg.DiceLoss'):
                yield (
                    f'{key} (DiceLoss) counts pixels of label 255 and padding as wrong '
                    'for whatever is predicted there: where there are any, set '
                    f"{key}=dict(type='TverskyLoss', alpha=0.5, beta=0.5), which is "
                    'the Dice loss of each class over the annotated pixels'
                )
