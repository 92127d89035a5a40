import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from illama_seg.backbones import ARCHITECTURES
from illama_seg.checkpoints import RELEASED
from illama_seg.studies.complexity.counts import count_multiply_accumulates

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
SIZES = ('tiny', 'small', 'base', 'large')
every_config = pytest.mark.parametrize('name', NAMES)
every_size = pytest.mark.parametrize('size', SIZES)


def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py')


def ade20k(size):
    return load(f'upernet_illama_{size}_ade20k')


def build(config, device='meta'):
    """The segmentor, without its pretrained weights; on 'meta', without memory."""
    config.model.backbone.init_cfg = None
    scope = DefaultScope.overwrite_default_scope('mmseg')
    with scope, torch.device(device):
        return MODELS.build(config.model)


def subdicts(config):
    """All dicts of a config, however deep."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list | tuple):
        for value in config.values() if isinstance(config, dict) else config:
            yield from subdicts(value)


def steps_of(pipeline):
    return {step['type']: step for step in pipeline}


# Every config


def test_the_four_sizes_have_a_config():
    assert {f'upernet_illama_{size}_ade20k' for size in SIZES} <= set(NAMES)


@every_config
def test_config_builds_its_model(name):
    model = build(load(name))
    assert type(model.backbone).__name__ == 'ILLaMA'
    rate = 1 if '_open_' in name else 0
    assert model.backbone.soft_mask_rate == rate


@every_config
def test_config_registers_the_package_once_for_mmseg(name):
    config = load(name)
    imports = ['illama_seg', 'illama_seg.apis.runs.overview']
    assert config.custom_imports.imports == imports
    assert config.custom_imports.allow_failed_imports is False
    assert config.default_scope == 'mmseg'


@every_config
def test_bases_are_our_own_and_hold_no_bases(name):
    tree = ast.parse((CONFIGS / f'{name}.py').read_text())
    bases = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_'
    ]
    for base in [base for group in bases for base in group]:
        assert '_base_' not in Config._file2dict(str(CONFIGS / base))[0], base
        assert (CONFIGS / base).is_file()


@every_config
def test_docstring_gives_the_command(name):
    docstring = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text()))
    assert f'tools/train.py configs/{name}.py' in docstring


@every_config
def test_norms_are_plain_batch_norms_until_a_distributed_run_converts_them(name):
    config = load(name)
    assert config.sync_bn == 'torch'
    norms = [
        found['norm_cfg'] for found in subdicts(config.model) if 'norm_cfg' in found
    ]
    assert norms and all(norm['type'] == 'BN' for norm in norms)
    # Feature2Pyramid's own default is SyncBN, so the built model is asked as well.
    built = [m for m in build(config).modules() if 'BatchNorm' in type(m).__name__]
    assert built and all(type(module) is nn.BatchNorm2d for module in built)


@every_config
def test_norms_biases_and_embeddings_have_no_weight_decay(name):
    config = load(name)
    model = build(config)
    decay = config.optim_wrapper.optimizer.weight_decay
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    found = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.RMSNorm | nn.LayerNorm | nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    without = 0
    for key, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in found, key
            continue
        free = id(parameter) in norms or key.endswith('.bias')
        free = free or key in ('backbone.pos_embed', 'backbone.cls_token')
        assert found[id(parameter)] == (0 if free else decay), key
        without += free
    lora = model.backbone.lora is not None  # else the blocks have some
    assert without > (0 if lora else len(model.backbone.blocks) * 4)


@every_config
def test_only_the_final_norm_and_the_class_token_output_are_not_built(name):
    model = build(load(name))
    assert not hasattr(model.backbone, 'norm')
    assert len(model.backbone.blocks) == model.backbone.out_indices[-1] + 1


# The ADE20K configs


@every_size
def test_backbone_is_of_the_size_in_the_name(size):
    config = ade20k(size)
    embed_dims = ARCHITECTURES[size]['embed_dims']
    assert config.model.backbone.arch == size
    assert config.model.backbone.img_size == 512
    assert config.model.neck.embed_dim == embed_dims
    assert config.model.decode_head.channels == embed_dims
    assert config.model.decode_head.num_classes == 150
    assert config.model.auxiliary_head.num_classes == 150
    last = ARCHITECTURES[size]['num_layers'] - 1
    assert config.model.backbone.out_indices[-1] == last


@pytest.mark.parametrize(
    ('size', 'name'),
    [
        ('tiny', 'illama-tiny-in1k-75.0.pth'),
        ('small', 'illama-small-in1k-79.9.pth'),
        ('base', 'illama-base-in1k-81.6.pth'),
        ('large', 'illama-large-in21kin1k-224-84.8.pth'),
    ],
)
def test_pretrained_weights_are_the_released_file_of_that_size(size, name):
    config = ade20k(size)
    assert config.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=RELEASED[name].url
    )
    assert config.model.backbone.init_cfg.checkpoint.endswith(f'/{name}')
    assert RELEASED[name].arch == size
    docstring = ast.get_docstring(ast.parse(Path(config.filename).read_text()))
    assert name in docstring


@every_size
def test_training_crops_512_from_images_scaled_by_half_to_two(size):
    steps = steps_of(ade20k(size).train_dataloader.dataset.pipeline)
    resize = steps['RandomResize']
    assert tuple(resize['scale']) == (2048, 512) and resize['keep_ratio']
    assert tuple(resize['ratio_range']) == (0.5, 2.0)
    assert tuple(steps['RandomCrop']['crop_size']) == (512, 512)
    assert steps['RandomFlip']['prob'] == 0.5
    preprocessor = ade20k(size).model.data_preprocessor
    assert tuple(preprocessor['size']) == (512, 512)
    assert preprocessor['seg_pad_val'] == 255


@every_size
def test_schedule_is_that_of_table_10_and_mmsegs_vit_recipe(size):
    config = ade20k(size)
    optimizer = config.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW'
    assert (optimizer.lr, optimizer.weight_decay) == (6e-5, 0.01)
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert config.train_cfg.max_iters == 160_000
    assert config.auto_scale_lr.base_batch_size == 16
    warmup, decay = config.param_scheduler
    assert warmup == dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500
    )
    assert decay == dict(
        type='PolyLR', eta_min=0, power=1, by_epoch=False, begin=1500, end=160_000
    )


def test_no_parameter_of_the_ade20k_recipe_has_a_learning_rate_of_its_own():
    config = ade20k('tiny')
    wrapper = build_optim_wrapper(build(config), config.optim_wrapper)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {6e-5}


@every_size
def test_default_test_slides_windows_of_512_by_341(size):
    test_cfg = ade20k(size).model.test_cfg
    assert test_cfg.mode == 'slide'
    assert tuple(test_cfg.crop_size) == (512, 512)
    assert tuple(test_cfg.stride) == (341, 341)


def test_labels_are_resized_to_nothing_in_the_test():
    types = [step['type'] for step in ade20k('tiny').test_dataloader.dataset.pipeline]
    assert types.index('Resize') < types.index('LoadAnnotations')


@every_size
def test_time_augmentation_has_six_scales_and_a_flip(size):
    config = ade20k(size)
    scales, flips, *_ = config.tta_pipeline[-1]['transforms']
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    expected = [(int(2048 * ratio), int(512 * ratio)) for ratio in ratios]
    assert [tuple(step['scale']) for step in scales] == expected
    assert all(step['type'] == 'Resize' and step['keep_ratio'] for step in scales)
    assert [step['prob'] for step in flips] == [0.0, 1.0]
    assert all(step['direction'] == 'horizontal' for step in flips)
    assert config.tta_model.type == 'AveragingTTAModel'


@pytest.mark.parametrize('mode', ['slide', 'whole'])
def test_windows_or_whole_images_are_one_override(mode):
    config = ade20k('tiny')
    config.merge_from_dict(
        {
            'model.test_cfg.mode': mode,
            'model.test_cfg.crop_size': (64, 64),
            'model.test_cfg.stride': (48, 48),
            'model.neck.embed_dim': 8,
            'model.decode_head.in_channels': [8] * 4,
            'model.decode_head.channels': 8,
            'model.auxiliary_head.in_channels': 8,
        }
    )
    config.model.backbone.arch = dict(embed_dims=8, num_layers=12, num_heads=2)
    model = build(config, 'cpu').eval()
    sizes = []
    model.backbone.register_forward_pre_hook(
        lambda _, args: sizes.append(tuple(args[0].shape[2:]))
    )
    with torch.no_grad():
        (sample,) = model.predict(torch.randn(1, 3, 72, 100))
    assert sample.seg_logits.data.shape == (150, 72, 100)
    assert sizes == ([(72, 100)] if mode == 'whole' else [(64, 64)] * 4)


# Table 10's figures


@pytest.mark.parametrize(
    ('size', 'table', 'with_norm'), [('base', 163.22, 163.223), ('tiny', 10.86, 10.865)]
)
def test_parameters_are_those_of_table_10(size, table, with_norm):
    model = build(ade20k(size))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 2) == table
    # The final norm, which a segmentation has no use for, was counted there.
    assert round((count + model.backbone.embed_dims) / 1e6, 3) == with_norm


@pytest.mark.parametrize(('size', 'table'), [('base', 163.29), ('tiny', 10.88)])
def test_parameters_of_the_plain_vit_are_those_of_table_10(size, table):
    model = build(load(f'upernet_vit_{size}_ade20k'))
    count = sum(parameter.numel() for parameter in model.parameters())
    # The final norm, weights and biases, was counted there.
    assert round((count + 2 * model.backbone.embed_dims) / 1e6, 2) == table


@pytest.mark.parametrize(
    ('size', 'without_products', 'with_products'),
    [('base', 585.60, 604.96), ('tiny', 37.07, 41.91)],
)
def test_multiply_accumulates_are_those_of_table_10(
    size, without_products, with_products
):
    macs = count_multiply_accumulates(build(ade20k(size)), (512, 512))
    counted = macs.total(attention=False, auxiliary=False) / 1e9
    assert counted == pytest.approx(without_products, rel=5e-4)
    total = macs.total(attention=True, auxiliary=False) / 1e9
    assert total == pytest.approx(with_products, rel=5e-4)
    executed = macs.total(attention=False, auxiliary=False, executed=True) / 1e9
    assert executed <= {'base': 360, 'tiny': 24}[size]
