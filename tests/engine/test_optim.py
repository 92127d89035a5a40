import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.engine import AutocastOptimWrapper, LayerDecayConstructor
from illama_seg.machine import precision

LR, DECAY, RATE = 0.1, 0.05, 0.5
NUM_DEPTHS = 4  # embeddings, two blocks, what comes after them


class Segmentor(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = backbone()
        self.head = nn.Conv2d(8, 3, 1)


def backbone():
    arch = dict(embed_dims=8, num_layers=2, num_heads=2)
    return ILLaMA(arch, img_size=16, patch_size=4, out_indices=-1)


def groups_of(model, constructor='LayerDecayConstructor', **paramwise_cfg):
    """Parameter name -> its group in the optimiser."""
    optimizer = dict(type='AdamW', lr=LR, weight_decay=DECAY)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor=constructor,
            optimizer=optimizer,
            paramwise_cfg=paramwise_cfg,
        ),
    )
    groups = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    return {name: groups[id(p)] for name, p in model.named_parameters()}


def depth_of(name):
    name = name.removeprefix('backbone.')
    if name.startswith('blocks.'):
        return 1 + int(name.split('.')[1])
    return 3 if name.startswith('head.') else 0


@pytest.mark.parametrize('make', [backbone, Segmentor], ids=['backbone', 'segmentor'])
@pytest.mark.parametrize('rate', [0.5, 0.75, 1.0])
def test_learning_rate_falls_geometrically_with_depth(make, rate):
    groups = groups_of(make(), layer_decay_rate=rate)
    for name, group in groups.items():
        expected = LR * rate ** (NUM_DEPTHS - 1 - depth_of(name))
        assert group['lr'] == pytest.approx(expected), name
        assert group['weight_decay'] == DECAY, name


def test_head_keeps_the_full_learning_rate():
    groups = groups_of(Segmentor(), layer_decay_rate=RATE)
    assert groups['head.weight']['lr'] == LR
    assert groups['backbone.blocks.1.mlp.fc1.weight']['lr'] == LR * RATE
    assert groups['backbone.pos_embed']['lr'] == LR * RATE**3


def test_every_parameter_is_in_one_group():
    model = Segmentor()
    wrapper = LayerDecayConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=LR)),
        dict(layer_decay_rate=RATE),
    )(model)
    held = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_flat_decay_mult_is_respected():
    groups = groups_of(Segmentor(), layer_decay_rate=RATE, flat_decay_mult=0.0)
    for name, parameter in Segmentor().named_parameters():
        expected = 0 if parameter.ndim == 1 else DECAY
        assert groups[name]['weight_decay'] == expected, name


def test_custom_keys_multiply_with_the_layer_decay():
    groups = groups_of(
        Segmentor(),
        layer_decay_rate=RATE,
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'head': dict(lr_mult=10.0),
            'blocks.0.mlp': dict(lr_mult=3.0),
        },
    )
    assert groups['backbone.pos_embed']['weight_decay'] == 0
    assert groups['backbone.pos_embed']['lr'] == pytest.approx(LR * RATE**3)
    assert groups['head.bias']['lr'] == pytest.approx(10 * LR)
    mlp, attn = (
        groups[f'backbone.blocks.0.{name}.weight']['lr']
        for name in ('mlp.fc1', 'attn.qkv')
    )
    assert mlp == pytest.approx(3 * LR * RATE**2)
    assert attn == pytest.approx(LR * RATE**2)


SHIPPED = {'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)}


@pytest.mark.parametrize('mult', [0.0, 0.1])
def test_a_key_of_the_whole_backbone_reaches_what_shipped_keys_name(mult):
    keys = SHIPPED | {'backbone': dict(lr_mult=mult)}
    options = dict(flat_decay_mult=0.0, custom_keys=keys)
    model = Segmentor()
    groups = groups_of(model, 'MergedKeysConstructor', **options)
    for name, parameter in model.named_parameters():
        group, inside = groups[name], name.startswith('backbone.')
        assert group['lr'] == pytest.approx(LR * (mult if inside else 1)), name
        is_bare = parameter.ndim == 1 or name.endswith(('pos_embed', 'cls_token'))
        assert group['weight_decay'] == (0 if is_bare else DECAY), name


def test_the_longer_key_wins_where_two_set_the_same_multiplier():
    keys = {
        'backbone': dict(lr_mult=0.1),
        'backbone.blocks.1': dict(lr_mult=0.5),
        'norm1': dict(decay_mult=2.0),
    }
    model = Segmentor()
    groups = groups_of(
        model, 'MergedKeysConstructor', flat_decay_mult=0.0, custom_keys=keys
    )
    first = groups['backbone.blocks.0.norm1.weight']
    second = groups['backbone.blocks.1.norm1.weight']
    assert first['lr'] == pytest.approx(0.1 * LR)
    assert second['lr'] == pytest.approx(0.5 * LR)
    assert first['weight_decay'] == second['weight_decay'] == 2 * DECAY


DECAYED = 'LayerDecayConstructor'


@pytest.mark.parametrize('constructor', ['MergedKeysConstructor', DECAYED])
@pytest.mark.parametrize('kind', ['norm', '.bias', 'pos_embed', 'norm1.weight'])
def test_a_user_who_stops_the_backbone_stops_what_other_keys_name(kind, constructor):
    keys = SHIPPED | {
        kind: dict(decay_mult=0.5),
        'backbone': dict(lr_mult=0.0),
        'head': dict(lr_mult=2.0),
    }
    options = dict(flat_decay_mult=0.0, custom_keys=keys)
    if constructor == DECAYED:
        options['layer_decay_rate'] = RATE
    model = Segmentor()
    groups = groups_of(model, constructor, **options)
    for name, parameter in model.named_parameters():
        group, inside = groups[name], name.startswith('backbone.')
        assert group['lr'] == (0 if inside else 2 * LR), name
        flat = parameter.ndim == 1 or name.endswith(('pos_embed', 'cls_token'))
        expected = 0.5 * DECAY if kind in f'.{name}' else 0 if flat else DECAY
        assert group['weight_decay'] == pytest.approx(expected), name


@pytest.mark.parametrize('constructor', ['MergedKeysConstructor', DECAYED])
def test_a_stopped_backbone_does_not_move(constructor):
    model = Segmentor()
    options = dict(custom_keys=SHIPPED | {'backbone': dict(lr_mult=0.0)})
    if constructor == DECAYED:
        options['layer_decay_rate'] = RATE
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor=constructor,
            optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
            paramwise_cfg=options,
        ),
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    output = model.head(model.backbone(torch.randn(1, 3, 16, 16))[0])
    wrapper.update_params(output.square().sum())
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        assert same == name.startswith('backbone.'), name


def test_adapters_have_the_rate_of_their_layer_and_their_key():
    model = Segmentor()
    arch = dict(embed_dims=8, num_layers=2, num_heads=2)
    lora = dict(r=2, lora_alpha=4)
    model.backbone = ILLaMA(arch, 16, 4, out_indices=-1, lora=lora)
    keys = {'lora_': dict(lr_mult=5.0)}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor=DECAYED,
            optimizer=dict(type='AdamW', lr=LR),
            paramwise_cfg=dict(layer_decay_rate=RATE, custom_keys=keys),
        ),
    )
    rates = {
        id(parameter): group['lr']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    named = dict(model.named_parameters())
    assert {name for name, p in named.items() if id(p) in rates} == trained
    for name in trained:
        scale = 5 * RATE ** (3 - depth_of(name)) if 'lora_' in name else 1
        assert rates[id(named[name])] == pytest.approx(LR * scale), name


def test_wrapped_model_is_unwrapped():
    model = Segmentor()
    wrapped = nn.Module()
    wrapped.module = model
    constructor = LayerDecayConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=LR)),
        dict(layer_decay_rate=RATE),
    )
    rates = {group['lr'] for group in constructor(wrapped).optimizer.param_groups}
    assert sorted(rates) == pytest.approx([LR * RATE**n for n in (3, 2, 1, 0)])


def test_constructor_may_be_used_twice():
    constructor = LayerDecayConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=LR)),
        dict(layer_decay_rate=RATE),
    )
    first, second = (
        [group['lr'] for group in constructor(Segmentor()).optimizer.param_groups]
        for _ in range(2)
    )
    assert first == second


def test_frozen_parameters_are_left_out():
    model = Segmentor()
    model.backbone.pos_embed.requires_grad_(False)
    wrapper = LayerDecayConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=LR)),
        dict(layer_decay_rate=RATE),
    )(model)
    held = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize('rate', [0, -0.5, 1.5])
def test_decay_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=rf'layer_decay_rate={rate}: .*\(0, 1\]'):
        groups_of(Segmentor(), layer_decay_rate=rate)


def test_missing_decay_rate_is_refused():
    with pytest.raises(ValueError, match='layer_decay_rate=None'):
        groups_of(Segmentor(), flat_decay_mult=0.0)


def test_model_without_depths_is_refused():
    with pytest.raises(ValueError, match='no module of the model has get_layer_depth'):
        groups_of(nn.Sequential(nn.Linear(2, 2)), layer_decay_rate=RATE)


DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
    ),
]


def autocast_wrapper(model, dtype='bfloat16', **options):
    config = dict(
        type='AutocastOptimWrapper',
        dtype=dtype,
        optimizer=dict(type='AdamW', lr=0.1),
        clip_grad=dict(max_norm=1.0),
    )
    return build_optim_wrapper(model, config | options)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('device', DEVICES)
def test_a_step_in_any_precision_leaves_float32_weights(device, dtype):
    model = Segmentor().to(device)
    wrapper = autocast_wrapper(model, dtype)
    assert type(wrapper) is AutocastOptimWrapper
    before = [parameter.detach().clone() for parameter in model.parameters()]
    dtypes = []
    for layer in (model.backbone.blocks[0].attn.qkv, model.head):
        layer.register_forward_hook(lambda _, __, out: dtypes.append(out.dtype))
    with wrapper.optim_context(model):
        output = model.head(model.backbone(torch.randn(2, 3, 16, 16, device=device))[0])
    wrapper.update_params(output.float().pow(2).mean())
    assert dtypes == [getattr(torch, dtype)] * 2
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
        assert not torch.equal(old, parameter)


def test_the_autocast_ends_with_the_forward_pass():
    model = Segmentor()
    with autocast_wrapper(model).optim_context(model):
        assert torch.is_autocast_enabled('cpu')
    assert not torch.is_autocast_enabled('cpu')


@pytest.fixture
def measured(monkeypatch):
    """Let a measurement find these seconds."""
    return lambda **seconds: monkeypatch.setattr(
        precision, 'measure_precisions', lambda device: seconds
    )


def test_the_measurement_decides_and_the_state_keeps_it(measured):
    measured(float32=2.0, bfloat16=1.0)
    model = Segmentor()
    wrapper = autocast_wrapper(model, 'auto')
    assert wrapper.precision.name == 'bfloat16'
    state = wrapper.state_dict()
    measured(float32=1.0, bfloat16=20.0)  # another machine
    resumed, fresh = (autocast_wrapper(model, 'auto') for _ in range(2))
    resumed.load_state_dict(state)
    assert resumed.precision.name == 'bfloat16'
    assert '20000.0 ms in bfloat16' in resumed.precision.reason
    assert fresh.precision.name == 'float32'
    asked = autocast_wrapper(model, 'float32')
    asked.load_state_dict(state)
    assert asked.precision.name == 'float32'
    assert state['precision'] == 'bfloat16'  # what was loaded is unchanged


def test_float32_has_the_gradients_of_mmengines_wrapper():
    weights = []
    for kind in ('OptimWrapper', 'AutocastOptimWrapper'):
        torch.manual_seed(0)
        model = Segmentor()
        config = dict(type=kind, optimizer=dict(type='AdamW', lr=0.1))
        if kind == 'AutocastOptimWrapper':
            config['dtype'] = 'float32'
        wrapper = build_optim_wrapper(model, config)
        with wrapper.optim_context(model):
            output = model.head(model.backbone(torch.ones(2, 3, 16, 16))[0])
        wrapper.update_params(output.pow(2).mean())
        weights.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_loss_scale_is_kept_in_the_state_of_float16_only():
    model = Segmentor()
    wrapper = autocast_wrapper(model, 'float16')
    wrapper.loss_scaler.load_state_dict(wrapper.loss_scaler.state_dict() | {'scale': 8})
    state = wrapper.state_dict()
    resumed = autocast_wrapper(model, 'float16')
    resumed.load_state_dict(state)
    assert resumed.loss_scaler.state_dict()['scale'] == 8
    other = autocast_wrapper(model, 'bfloat16')
    other.load_state_dict(state)
    assert other.loss_scaler is None and 'loss_scaler' not in other.state_dict()


def test_float16_skips_a_step_with_gradients_that_are_not_finite():
    model = Segmentor()
    wrapper = autocast_wrapper(model, 'float16')
    before = [p.detach().clone() for p in model.parameters()]
    with wrapper.optim_context(model):
        output = model.head(model.backbone(torch.ones(2, 3, 16, 16))[0])
    scale = wrapper.loss_scaler.get_scale()
    wrapper.update_params(output.float().mean() * float('inf'))
    assert all(map(torch.equal, before, model.parameters()))
    assert wrapper.loss_scaler.get_scale() == scale / 2


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"optim_wrapper\.dtype='half': expected one"):
        autocast_wrapper(Segmentor(), 'half')
