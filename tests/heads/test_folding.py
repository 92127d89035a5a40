"""Folded segmentors give the same logits by fewer operations."""

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from illama_seg.apis import load_config
from illama_seg.heads import fold_for_inference

ARCH = dict(_delete_=True, embed_dims=24, num_layers=12, num_heads=3)


def segmentor(**options):
    """Build the Base config's model, small, with statistics as after a training."""
    options = {
        'model.backbone.arch': ARCH,
        'model.backbone.img_size': 64,
        'model.backbone.init_cfg': None,
        'model.neck.embed_dim': 24,
        'model.decode_head.in_channels': [24] * 4,
        'model.decode_head.channels': 16,
        'model.auxiliary_head.in_channels': 24,
        **options,
    }
    cfg = load_config('upernet_illama_base_ade20k', options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).double().eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 2)
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values)
    return model


@pytest.mark.parametrize('head', ['EfficientUPerHead', 'UPerHead'])
@pytest.mark.parametrize('rescales', [[4, 2, 1, 0.5], [2, 4, 1, 0.5]])
@pytest.mark.parametrize('size', [(64, 64), (48, 80)])
def test_logits_stay_and_no_normalisation_is_left(head, rescales, size):
    options = {'model.decode_head.type': head, 'model.neck.rescales': rescales}
    model = segmentor(**options)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = model(image, mode='tensor')
        folded = fold_for_inference(model)(image, mode='tensor')
    assert (folded - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert not any(isinstance(module, _BatchNorm) for module in model.modules())
    laterals = [type(lateral.conv) for lateral in model.decode_head.lateral_convs]
    assert laterals == [nn.Identity, nn.Identity, nn.Conv2d]


def test_what_cannot_be_folded_stays():
    model = segmentor(**{'model.decode_head.norm_cfg': dict(type='GN', num_groups=2)})
    head = model.decode_head
    head.lateral_convs[1].conv = nn.Conv2d(24, 16, 3, padding=1).double()
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(image, mode='tensor')
        folded = fold_for_inference(model)(image, mode='tensor')
    assert (folded - expected).abs().max() <= 1e-10 * expected.abs().max()
    norms = [m for m in head.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == sum(isinstance(m, ConvModule) for m in head.modules())
    assert type(head.lateral_convs[1].conv) is nn.Conv2d


def test_a_model_without_neck_and_upernet_is_folded_too():
    model = nn.Sequential(ConvModule(3, 4, 3, norm_cfg=dict(type='BN'))).double().eval()
    nn.init.normal_(model[0].bn.running_mean)
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = model(image)
        torch.testing.assert_close(fold_for_inference(model)(image), expected)
    assert type(model[0].norm) is nn.Identity


@pytest.mark.parametrize(
    'layers',
    [
        [ConvModule(4, 4, 3, norm_cfg=dict(type='BN'), with_spectral_norm=True)],
        [nn.ConvTranspose2d(4, 4, 2, 2, groups=2), nn.BatchNorm2d(4)],
        [nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 2)), nn.ReLU()],
    ],
    ids=['spectral norm', 'groups', 'weight norm'],
)
def test_a_convolution_of_another_kind_is_left_alone(layers):
    model = nn.Sequential(*layers).eval()
    image = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        expected = model(image)
        torch.testing.assert_close(fold_for_inference(model)(image), expected)
