"""A classifier of the handwritten digits that takes a fraction of a second."""

import torch
from mmengine.registry import MODELS, DefaultScope
from tiny_run import ROOT

from illama_seg.apis import load_config

CONFIG = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
OPTIONS = {
    'model.backbone.arch.embed_dims': 16,
    'model.backbone.arch.num_layers': 2,
    'model.head.in_channels': 16,
    'test_dataloader.batch_size': 16,
    'test_dataloader.dataset.indices': 50,
}


def as_arguments(options):
    """What follows --cfg-options."""
    return [f'{key}={value}' for key, value in options.items()]


def build(options=OPTIONS):
    """The model of the config, its weights random."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(load_config(CONFIG, options).model)
    model.init_weights()
    return model.eval()


def save(model, path, classes='0123456789'):
    """As tools/train.py saves it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = dict(dataset_meta=dict(classes=tuple(classes)))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
