"""The recipes of arXiv 2404.06773, Table 15."""

import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = {'tiny': (3e-3, 72.4, 75.0), 'small': (4e-3, 77.4, 79.9)}
STEPS = dict(lr_mult=0.01, decay_mult=0.0)
every_size = pytest.mark.parametrize('size', RECIPES)


def load(size):
    return Config.fromfile(CONFIGS / 'quantization' / f'illama_{size}_w8a8_in1k.py')


@every_size
def test_all_but_learning_rate_and_8_bits_is_the_recipe_on_imagenet(size):
    config = load(size)
    expected = Config.fromfile(CONFIGS / 'pretrain' / f'illama_{size}_in1k.py')
    assert config.optim_wrapper.optimizer.lr == RECIPES[size][0]
    assert config.model.backbone.type == 'QuantizedILLaMA'
    expected.optim_wrapper.optimizer.lr = RECIPES[size][0]
    expected.optim_wrapper.paramwise_cfg.custom_keys.step = STEPS
    expected.model.backbone.type = 'QuantizedILLaMA'
    assert config.to_dict() == expected.to_dict()


@every_size
def test_the_docstring_has_the_papers_figures_and_the_command(size):
    path = CONFIGS / 'quantization' / f'illama_{size}_w8a8_in1k.py'
    text = ast.get_docstring(ast.parse(path.read_text()))
    _, found, full = RECIPES[size]
    assert f"the paper's figure): {found} top-1; {full} with 32 bits" in text
    assert f'tools/train.py configs/quantization/{path.name}' in text


@pytest.mark.parametrize('name', ['tiny_w8a8_in1k', 'micro_w8a8_cifar10'])
def test_step_sizes_learn_slower_and_do_not_decay(name):
    config = Config.fromfile(CONFIGS / 'quantization' / f'illama_{name}.py')
    config.model.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        model = MODELS.build(config.model)
    config.optim_wrapper.type = 'OptimWrapper'
    config.optim_wrapper.optimizer.fused = False
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    groups = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    rate = config.optim_wrapper.optimizer.lr
    blocks = model.backbone.blocks.named_parameters()
    for key, parameter in blocks:
        group = groups[id(parameter)]
        slow = 0.01 if 'step' in key else 1
        assert group['lr'] == pytest.approx(slow * rate), key
        assert (group['weight_decay'] > 0) == (parameter.ndim > 1), key


def test_the_micro_classifier_starts_from_the_float_one():
    config = Config.fromfile(CONFIGS / 'quantization' / 'illama_micro_w8a8_cifar10.py')
    float_one = Config.fromfile(CONFIGS / 'pretrain' / 'illama_micro_cifar10.py')
    source = Path(config.model.init_cfg.checkpoint)
    assert source.parent.name == 'illama_micro_cifar10'
    assert source.name == f'epoch_{float_one.train_cfg.max_epochs}.pth'
    assert config.custom_hooks == []
