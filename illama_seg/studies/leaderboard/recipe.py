"""One recipe for all models: data, crop, schedule and evaluation of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config

from illama_seg.apis.model_rules import HEADS, named
from illama_seg.apis.models import get_config
from illama_seg.errors import UserError
from illama_seg.machine.precision import precision_with

# Data set -> config of which everything but the model is taken.
RECIPES = dict(
    demo='upernet_illama_demo',
    camvid='upernet_illama_micro_camvid',
    ade20k='upernet_illama_tiny_ade20k',
)


def under_recipe(cfg: Config, dataset: str) -> Config:
    """Return a config's model in the recipe of a data set.

    Backbone, neck, heads and custom hooks are the config's. Their number of classes
    and class weights, the size of positional embeddings, preprocessor and windows, and
    everything outside the model, are the recipe's.

    Args:
        cfg: of a segmentor.
        dataset: a key of ``RECIPES``.

    Raises:
        UserError: if there is no recipe of this name.
    """
    if dataset not in RECIPES:
        raise UserError(f'expected one of {", ".join(RECIPES)}', dataset=dataset)
    recipe, model = get_config(RECIPES[dataset]), cfg.model
    own: Any = recipe.model
    classes = own.decode_head.num_classes
    counts = [head.num_classes for _, head in named(model, HEADS)]
    weights = own.decode_head.loss_decode.get('class_weight')
    for _, head in named(model, HEADS):
        head.num_classes = classes
        for _, loss in named(head, ('loss_decode',)):
            if loss.get('type') == 'CrossEntropyLoss':
                loss.class_weight = weights
    backbone = model.backbone
    if backbone.get('num_queries') in counts:
        backbone.num_queries = classes
    if 'img_size' in backbone:
        backbone.img_size = own.backbone.img_size
    model.data_preprocessor, model.test_cfg = own.data_preprocessor, own.test_cfg
    recipe.model = model
    recipe.custom_hooks = cfg.get('custom_hooks', [])
    return recipe


def settle(cfg: Config) -> Config:
    """Set what every run of a board has: one precision, and the last checkpoint.

    A precision that would be measured is measured now, once for all runs. The last
    iteration counts, not the best of those that were validated.
    """
    wrapper: Any = cfg.optim_wrapper
    if (
        wrapper.type == 'AutocastOptimWrapper'
        and wrapper.get('dtype', 'auto') == 'auto'
    ):
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        wrapper.dtype = precision_with(True, device).name
    cfg.default_hooks.checkpoint.update(save_best=None, max_keep_ckpts=1)
    return cfg


def changed(cfg: Config, earlier: Config) -> str:
    """Describe the first setting that is not as in an earlier config, or nothing."""
    new, old = (
        dict(_flat(json.loads(json.dumps(c.to_dict())))) for c in (cfg, earlier)
    )
    for key in sorted(new.keys() | old.keys()):
        if new.get(key) != old.get(key) and key != 'work_dir':
            return f'{key}={new.get(key)}, and {old.get(key)} before'
    return ''


def _flat(value: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values."""
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    else:
        yield prefix, value
    for key, part in pairs:
        yield from _flat(part, f'{prefix}.{key}' if prefix else str(key))
