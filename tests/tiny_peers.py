"""Small models of the kinds of configs/peers."""

import ast
from pathlib import Path

from mmengine.registry import MODELS, DefaultScope
from tiny_run import data_options, model_options, run_options

from illama_seg.apis import load_config

CONFIGS = Path(__file__).parents[1] / 'configs' / 'peers'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
CAMVID = [name for name in NAMES if 'camvid' in name]
ADE20K = [name for name in NAMES if 'camvid' not in name]
HEAD, AUXILIARY = 'model.decode_head', 'model.auxiliary_head'


def channels(width):
    """Options of a decoder over maps of as many channels."""
    return [
        f'model.neck.embed_dim={width}',
        f'{HEAD}.in_channels=[{width},{width},{width},{width}]',
        f'{AUXILIARY}.in_channels={width}',
    ]


# A small one of every kind: name of the config -> options.
SMALL = {
    'segformer_b0_ade20k': [],
    'upernet_convnext_tiny_ade20k': [
        'model.backbone.model_name=convnext_atto',
        f'{HEAD}.in_channels=[40,80,160,320]',
        f'{AUXILIARY}.in_channels=160',
    ],
    'upernet_deit3_base_ade20k': [
        'model.backbone.model_name=deit3_small_patch16_224',
        'model.backbone.img_size=64',
        *channels(384),
    ],
    'upernet_dinov3_small_ade20k': [
        'model.backbone.model_name=vit_tiny_patch16_dinov3_qkvb',
        *channels(192),
    ],
    'upernet_eva02_base_ade20k': [
        'model.backbone.model_name=eva02_tiny_patch14_224',
        'model.backbone.img_size=70',
        *channels(192),
    ],
    'upernet_swin_tiny_ade20k': [],
    'upernet_swin_tiny_timm_ade20k': [],
    'upernet_visionllama_base_ade20k': model_options(),
}


def options_of(name, data, small=True):
    """Options of a run of two iterations at a crop of 64 x 64 pixels."""
    options = [*data_options(data), *run_options()]
    options += [
        'model.data_preprocessor.size=(64,64)',
        'model.test_cfg.crop_size=(64,64)',
        'model.test_cfg.stride=(43,43)',
    ]
    if small:
        options += [*SMALL[name], f'{HEAD}.channels=16']
    return [option for option in options if 'init_cfg' not in option]


def load(name, *options):
    cfg = load_config(CONFIGS / f'{name}.py')
    cfg.merge_from_dict(dict(map(parsed, options)))
    return cfg


def parsed(option):
    key, _, value = option.partition('=')
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(cfg.model)
