"""configs/ablation: the steps of arXiv 2404.06773, Table 17, each one change."""

import ast
import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

CONFIGS = Path(__file__).parents[1] / 'configs'
# step: its predecessor, and what the paper changed.
CHANGES = {
    '2_swiglu': ('1_vit', {'ffn'}),
    '3_rmsnorm': ('2_swiglu', {'norm'}),
    '4_causal': ('3_rmsnorm', {'attn_mask'}),
    '5_last_cls': ('4_causal', {'cls_position'}),
    '5b_modified_mask': ('4_causal', {'attn_mask'}),
    '6_rope': ('5_last_cls', {'with_rotary', 'with_pos_embed'}),
    '7_pos_embed': ('6_rope', {'with_pos_embed'}),
    '8_mixing': ('7_pos_embed', {'mixing'}),
    # The soft mask is a mask and its schedule.
    '9_soft_mask': ('8_mixing', {'attn_mask', 'schedule'}),
}
STEPS = ['1_vit', *CHANGES]
# step: top-1 accuracy and training loss, Tiny's and Base's; row 4 has no loss.
TABLE_17 = {
    '1_vit': ('73.8 3.451', '81.5 2.828'),
    '2_swiglu': ('74.3 3.407', '82.0 2.724'),
    '3_rmsnorm': ('74.5 3.406', '81.7 2.721'),
    '4_causal': ('0.1', '0.1'),
    '5_last_cls': ('71.9 3.599', '80.6 2.869'),
    '5b_modified_mask': ('72.5 3.550', '80.4 2.857'),
    '6_rope': ('72.6 3.618', '81.2 2.861'),
    '7_pos_embed': ('73.2 3.531', '81.2 2.839'),
    '8_mixing': ('74.3 2.990', '81.3 2.868'),
    '9_soft_mask': ('75.0 2.955', '81.6 2.828'),
}
every_size = pytest.mark.parametrize('size', ['tiny', 'base'])


def load(size, step):
    return Config.fromfile(CONFIGS / 'ablation' / f'{size}_{step}.py')


def settings(cfg):
    """All that decides the result, flat."""
    cfg = cfg.to_dict()
    preprocessor = cfg['model'].pop('data_preprocessor')
    found = cfg['model'].pop('backbone')
    found['mixing'] = preprocessor.pop('mixup'), preprocessor.pop('cutmix')
    found['schedule'] = cfg.pop('custom_hooks')
    return found | {'preprocessor': preprocessor, 'else': cfg}


def test_the_folder_has_ten_steps_for_two_sizes():
    names = {path.stem for path in (CONFIGS / 'ablation').glob('*.py')}
    assert names == {f'{size}_{step}' for size in ('tiny', 'base') for step in STEPS}


@every_size
@pytest.mark.parametrize('step', CHANGES)
def test_a_step_changes_one_thing_of_its_predecessor(size, step):
    before, expected = CHANGES[step]
    old, new = settings(load(size, before)), settings(load(size, step))
    assert {key for key in new if new[key] != old.get(key)} == expected


@every_size
def test_the_last_step_is_the_recipe(size):
    recipe = Config.fromfile(CONFIGS / 'pretrain' / f'illama_{size}_in1k.py')
    recipe, last = settings(recipe), settings(load(size, '9_soft_mask'))
    parts = set(last) - set(recipe)
    assert {key: last[key] for key in recipe} == recipe
    with torch.device('meta'):
        default = MODELS.build(dict(type='ILLaMA', arch=size))
    assert parts == {
        'ffn',
        'norm',
        'attn_mask',
        'cls_position',
        'with_pos_embed',
        'with_rotary',
    }
    assert (default.attn_mask, default.cls_position) == ('soft', 'last')


@every_size
@pytest.mark.parametrize('step', STEPS)
def test_a_step_builds_and_tells_the_papers_figure_and_the_command(size, step):
    with torch.device('meta'):
        MODELS.build(load(size, step).model)
    path = CONFIGS / 'ablation' / f'{size}_{step}.py'
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    (line,) = re.findall(r"\(the paper's figure\): (.*)\.$", docstring, re.MULTILINE)
    figures = TABLE_17[step][size == 'base']
    assert (
        'Table 17' in docstring
        and re.findall(r'[\d.]+', line.replace('top-1', '')) == figures.split()
    )
    assert f'tools/train.py configs/ablation/{size}_{step}.py' in docstring


@pytest.mark.parametrize(
    ('step', 'millions'),
    # Of the steps that change it, at 224 with 1000 classes.
    [('1_vit', 5.717), ('9_soft_mask', 5.701)],
)
def test_parameters_of_tiny_from_the_vit_to_illama(step, millions):
    with torch.device('meta'):
        model = MODELS.build(load('tiny', step).model)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 3) == millions


def test_row_1_has_the_logits_of_timms_deit():
    model = MODELS.build(load('tiny', '1_vit').model).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    deit = timm.create_model('deit_tiny_patch16_224').eval()
    state = {
        key.removeprefix('backbone.').replace('head.fc', 'head'): value
        for key, value in model.state_dict().items()
    }
    deit.load_state_dict(state)
    image = torch.randn(2, 3, 224, 224, generator=generator)
    with torch.no_grad():
        expected = deit(image)
        found = model(image, mode='tensor')
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
