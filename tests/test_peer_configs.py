"""The configs of configs/peers: one recipe, what they build and count."""

import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from tiny_peers import AUXILIARY, CAMVID, CONFIGS, HEAD, NAMES, load
from torch import nn

from illama_seg.apis import list_models, load_config
from illama_seg.apis.configs import find_config
from illama_seg.apis.consistency import contradictions
from illama_seg.studies.common import build_on_meta
from illama_seg.studies.complexity.counts import count_multiply_accumulates

ROOT = Path(__file__).parents[1]
LIST = re.findall(
    r'^\| `(\w+)` \|.*\| ([\d.]+)M \| ([\d.]+)G \| ([\d.]+)G \|$',
    (ROOT / 'docs' / 'peers.md').read_text(),
    re.MULTILINE,
)
every_config = pytest.mark.parametrize('name', NAMES)


# Every config


@every_config
def test_all_but_the_model_is_the_recipe_of_illama(name):
    recipe = 'upernet_illama_micro_camvid' if name in CAMVID else 'upernet_illama_base'
    recipe = recipe if name in CAMVID else f'{recipe}_ade20k'
    expected, found = (
        load_config(file).to_dict()
        for file in (ROOT / 'configs' / f'{recipe}.py', CONFIGS / f'{name}.py')
    )
    models = [cfg.pop('model') for cfg in (expected, found)]
    # A peer adds only parameters of its own without weight decay.
    keys = [
        cfg['optim_wrapper']['paramwise_cfg'].pop('custom_keys')
        for cfg in (expected, found)
    ]
    assert all(keys[1][key] == value for key, value in keys[0].items())
    added = [keys[1][key] for key in keys[1].keys() - keys[0].keys()]
    assert all(value == dict(decay_mult=0.0) for value in added)
    for cfg in (expected, found):
        cfg.pop('work_dir')
    assert found == expected
    for key in ('test_cfg', 'train_cfg', 'type'):
        assert models[0][key] == models[1][key]
    for model in models:
        if 'eva02' in name:  # pixels have its own mean and deviation
            del model['data_preprocessor']['mean'], model['data_preprocessor']['std']
    assert models[0]['data_preprocessor'] == models[1]['data_preprocessor']


def depth(path):
    """Configs between a config and those of _base_/."""
    tree = ast.parse(path.read_text())
    bases = [
        base
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_'
        for base in ast.literal_eval(node.value)
    ]
    above = [path.parent / base for base in bases if '_base_/' not in base]
    return max((1 + depth(base) for base in above), default=0)


@every_config
def test_at_most_two_configs_are_between_a_peer_and_the_bases(name):
    assert 1 <= depth(CONFIGS / f'{name}.py') <= 2


@every_config
def test_the_docstring_gives_the_command_and_says_what_was_not_measured(name):
    docstring = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text()))
    assert f'tools/train.py configs/peers/{name}.py' in docstring
    assert 'figure: not measured' in docstring and 'Memory: not measured' in docstring
    model = load(name).model.backbone.get('model_name')
    assert model is None or f'https://huggingface.co/timm/{model}.' in docstring


@every_config
def test_nothing_is_downloaded_by_default(name):
    source = (load(name).model.backbone.get('init_cfg') or {}).get('checkpoint', '')
    assert source.startswith('work_dirs/') if name in CAMVID else not source


@every_config
def test_the_config_does_not_contradict_itself(name):
    cfg = load(name)
    names = tuple(f'class {i}' for i in range(cfg.model.decode_head.num_classes))
    assert not contradictions(cfg, dict(train=names, val=names))


@every_config
def test_norms_are_batch_norms_and_no_bias_or_position_decays(name):
    cfg = load(name)
    cfg.model.backbone.init_cfg = None
    model = build_on_meta(cfg)
    types = {type(m) for m in model.modules() if 'BatchNorm' in type(m).__name__}
    assert types == {nn.BatchNorm2d}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    tokens = 'pos_embed', 'cls_token', 'reg_token', 'relative_position_bias_table'
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 or key.endswith(tokens):
            assert decay[id(parameter)] == 0, key


@pytest.mark.parametrize(('name', *'pma'), LIST, ids=[row[0] for row in LIST])
def test_a_row_of_the_page_is_what_is_counted(name, p, m, a):
    cfg = load_config(find_config(name))
    cfg.model.backbone.init_cfg = None
    model = build_on_meta(cfg)
    assert f'{sum(x.numel() for x in model.parameters()) / 1e6:.2f}' == p
    macs = count_multiply_accumulates(model, (512, 512))
    assert f'{macs.total(attention=False, auxiliary=False) / 1e9:.2f}' == m
    assert f'{macs.total(attention=True, auxiliary=False) / 1e9:.2f}' == a


def test_the_page_has_a_row_for_every_peer():
    assert set(NAMES) <= {row[0] for row in LIST} <= set(list_models())


@pytest.mark.parametrize('name', CAMVID)
def test_the_checkpoint_of_a_micro_one_is_of_the_classifier_beside_it(name):
    backbone = load(name).model.backbone
    source = Path(backbone.init_cfg.checkpoint)
    classifier = Config.fromfile(ROOT / f'configs/pretrain/{source.parent.name}.py')
    assert source.name == f'epoch_{classifier.train_cfg.max_epochs}.pth'
    assert backbone.get('rotary_img_size', 112) == classifier.model.backbone.img_size
    differing = {'img_size', 'init_cfg', 'out_indices', 'out_type', 'rotary_img_size'}
    differing.add('drop_path_rate')
    parts = [
        {key: value for key, value in part.to_dict().items() if key not in differing}
        for part in (backbone, classifier.model.backbone)
    ]
    assert parts[0] == parts[1]


# A channel that does not fit


@pytest.mark.parametrize(
    ('name', 'wrong', 'text', 'mends'),
    [
        (
            'upernet_convnext_tiny_ade20k',
            f'{HEAD}.in_channels=[96,192,384,512]',
            'hands on [96, 192, 384, 768] channels',
            f'{HEAD}.in_channels=[96,192,384,768]',
        ),
        (
            'upernet_swin_tiny_timm_ade20k',
            f'{AUXILIARY}.in_channels=768',
            'hands on [96, 192, 384, 768] channels',
            f'{AUXILIARY}.in_channels=384',
        ),
        (
            'upernet_dinov3_small_ade20k',
            'model.neck.embed_dim=768',
            'hands on 384 channels',
            'model.neck.embed_dim=384',
        ),
        (
            'upernet_deit3_small_ade20k',
            f'{AUXILIARY}.in_index=4',
            'out_indices=(3, 5, 7, 11) are 4 levels',
            f'{AUXILIARY}.in_index from 0 to 3',
        ),
    ],
)
def test_channels_and_levels_that_do_not_fit_are_named(name, wrong, text, mends):
    names = tuple(f'class {i}' for i in range(150))
    (found,) = contradictions(load(name, wrong), dict(train=names, val=names))
    assert found.startswith(wrong.split('=')[0]) and text in found
    assert found.endswith(f'set {mends}')
