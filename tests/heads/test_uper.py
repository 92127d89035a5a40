"""The efficient head against mmseg's own: weights, outputs, gradients."""

import copy
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from mmseg.models.decode_heads import UPerHead
from torch import nn
from torch.nn.utils import prune

from illama_seg.apis import load_config
from illama_seg.heads import EfficientUPerHead

ZOO = Path(mmseg.__file__).parent / '.mim' / 'configs' / '_base_' / 'models'
ARGUMENTS = dict(
    in_channels=[3, 4, 5, 6],
    in_index=[0, 1, 2, 3],
    channels=7,
    dropout_ratio=0.0,
    num_classes=4,
    norm_cfg=dict(type='BN'),
)


def pair(dtype=torch.float64, **arguments):
    """Build our head and mmseg's with equal weights."""
    torch.manual_seed(0)
    arguments = ARGUMENTS | arguments
    theirs = UPerHead(**arguments).to(dtype)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
    ours = EfficientUPerHead(**arguments).to(dtype)
    assert not any(ours.load_state_dict(theirs.state_dict()))
    return ours, theirs


def pyramid(height, width, channels=(3, 4, 5, 6), dtype=torch.float64):
    """Maps of a picture of any size, each about half as large as the one before."""
    sizes = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    return [
        torch.randn(2, c, *size, dtype=dtype)
        for c, size in zip(channels, sizes, strict=True)
    ]


def outputs(head, maps):
    leaves = [x.clone().requires_grad_() for x in maps]
    out = head(leaves)
    out.square().sum().backward()
    grads = {name: p.grad for name, p in head.named_parameters()}
    grads |= {f'map {i}': x.grad for i, x in enumerate(leaves) if x.grad is not None}
    return {'out': out, **grads}


def assert_same(heads, maps, tolerance):
    ours, theirs = (outputs(head, maps) for head in heads)
    assert ours.keys() == theirs.keys()
    largest = max(x.norm() for x in theirs.values())
    for name, exact in theirs.items():
        # A bias before batch normalisation has no gradient but rounding.
        error = (ours[name] - exact).norm()
        assert error <= tolerance * max(exact.norm(), 1e-3 * largest), name


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(64, 96), (33, 50), (130, 67), (32, 200), (7, 5)])
def test_outputs_and_gradients_are_those_of_mmseg_at_any_size(size, align_corners):
    heads = pair(align_corners=align_corners)
    for head in heads:
        head.eval()
    assert_same(heads, pyramid(*size), 1e-10)


@pytest.mark.parametrize(('dtype', 'tolerance'), [('float64', 1e-9), ('float32', 1e-4)])
def test_training_gives_the_gradients_and_statistics_of_mmseg(dtype, tolerance):
    dtype = getattr(torch, dtype)
    heads = pair(dtype)
    assert_same(heads, pyramid(96, 64, dtype=dtype), tolerance)
    for (name, ours), theirs in zip(
        heads[0].named_buffers(), heads[1].buffers(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-6), name


def test_float32_outputs_differ_by_rounding():
    heads = pair(torch.float32)
    maps = pyramid(96, 64, dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = (head.eval()(maps) for head in heads)
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_autocast_is_as_near_to_float64_as_mmseg_is():
    heads = pair(torch.float32)
    maps = pyramid(96, 64, dtype=torch.float32)
    exact = copy.deepcopy(heads[1]).double().eval()([x.double() for x in maps])
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        errors = [(head.eval()(maps) - exact).norm() / exact.norm() for head in heads]
    assert errors[0] < 2 * errors[1] + 0.01


def test_checkpoints_fit_both_ways():
    ours, theirs = pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    nn.init.normal_(ours.fpn_bottleneck.conv.weight)
    theirs.load_state_dict(ours.state_dict())
    maps = pyramid(40, 40)
    torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps))


@pytest.mark.parametrize(
    'name',
    ['upernet_swin', 'upernet_convnext', 'upernet_vit-b16_ln_mln', 'upernet_r50'],
)
def test_heads_of_mmsegs_zoo_keep_their_outputs(name):
    if not (ZOO / f'{name}.py').exists():
        pytest.skip('this mmseg was installed without its configs')
    config = Config.fromfile(
        ZOO / f'{name}.py', import_custom_modules=False
    ).model.decode_head
    assert config.pop('type') == 'UPerHead'
    config.update(in_channels=[c // 32 for c in config.in_channels], channels=16)
    config.norm_cfg = dict(type='BN')  # SyncBN needs a GPU
    heads = pair(**config)
    for head in heads:
        head.eval()
    assert_same(heads, pyramid(64, 48, config.in_channels), 1e-10)


@pytest.mark.parametrize(
    'arguments',
    [
        dict(norm_cfg=None),
        dict(act_cfg=dict(type='GELU')),
        dict(pool_scales=(1, 9)),
        dict(in_channels=[3, 4], in_index=[2, 1]),
    ],
    ids=str,
)
def test_other_arguments_keep_their_outputs(arguments):
    heads = pair(**arguments)
    for head in heads:
        head.eval()
    maps = pyramid(48, 64)
    if 'in_index' in arguments:
        maps = pyramid(48, 64, (3, 4, 3, 6))
    assert_same(heads, maps, 1e-10)


def test_a_convolution_of_another_kind_is_computed_as_mmseg_does():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    heads = pair()
    for head in heads:
        for module in (head.fpn_bottleneck, head.bottleneck):
            module.conv.__class__ = Doubled
        head.eval()
    assert_same(heads, pyramid(48, 64), 1e-12)


def test_a_hook_sees_the_concatenation():
    ours, _ = pair()
    seen = []
    ours.fpn_bottleneck.conv.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape)
    )
    ours.eval()(pyramid(48, 64))
    assert seen == [(2, 28, 12, 16)]


def test_the_name_is_registered():
    assert MODELS.get('EfficientUPerHead') is EfficientUPerHead


def test_weights_that_a_hook_makes_are_those_of_the_hook():
    heads = pair()
    for head in heads:
        prune.l1_unstructured(head.fpn_bottleneck.conv, 'weight', 0.5)
        state = head.state_dict()
        state['fpn_bottleneck.conv.weight_orig'] *= 3
        head.load_state_dict(state)
        head.eval()
    assert_same(heads, pyramid(48, 64), 1e-12)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_torchscript_traces_it():
    ours, theirs = pair(torch.float32)
    maps = pyramid(48, 64, dtype=torch.float32)
    with torch.no_grad():
        traced = torch.jit.trace(ours.eval(), (maps,), check_trace=False)
        torch.testing.assert_close(traced(maps), theirs.eval()(maps))


def test_it_compiles_and_exports_in_one_graph():
    ours, _ = pair(torch.float32)
    ours.eval()
    maps = pyramid(48, 64, dtype=torch.float32)
    with torch.no_grad():
        expected = ours(maps)
        compiled = torch.compile(ours, backend='aot_eager', fullgraph=True)(maps)
        exported = torch.export.export(ours, (maps,)).module()(maps)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


def test_the_configs_take_it_and_one_option_takes_mmsegs():
    cfg = load_config('upernet_illama_tiny_ade20k')
    assert cfg.model.decode_head.type == 'EfficientUPerHead'
    option = {'model.decode_head.type': 'UPerHead'}
    cfg = load_config('upernet_illama_tiny_ade20k', option)
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        assert type(MODELS.build(cfg.model).decode_head) is UPerHead


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_on_a_gpu_outputs_and_gradients_are_those_of_mmseg():
    heads = [head.cuda().eval() for head in pair()]
    assert_same(heads, [x.cuda() for x in pyramid(64, 96)], 1e-10)
