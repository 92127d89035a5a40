"""Maps of timm's models: sizes of images, weights of files, arguments."""

import pickle
from pathlib import Path

import pytest
import timm
import torch
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file

from illama_seg.errors import UserError
from illama_seg.integrations.timm_features import TimmFeatures

PLAIN = dict(out_indices=(3, 5, 7, 11))
# A small one of every kind that configs/peers has.
KINDS = {
    'deit3_small_patch16_224': dict(PLAIN, img_size=64),
    'vit_tiny_patch16_dinov3_qkvb': PLAIN,
    'eva02_tiny_patch14_224': dict(PLAIN, img_size=70),
    'convnext_atto': {},
    'swin_tiny_patch4_window7_224': {},
}
SIZES = [(64, 64), (70, 101), (33, 160), (1, 1)]
every_kind = pytest.mark.parametrize('name', KINDS)
every_size = pytest.mark.parametrize('size', SIZES)


@pytest.fixture(scope='module', params=KINDS)
def model(request):
    torch.manual_seed(0)
    return TimmFeatures(request.param, **KINDS[request.param]).eval()


def small(init_cfg=None, name='deit_tiny_patch16_224', **options):
    options = dict(PLAIN, img_size=64) | options
    return TimmFeatures(name, init_cfg=init_cfg, **options).eval()


def pretrained(path):
    return dict(type='Pretrained', checkpoint=str(path))


@every_size
def test_maps_have_their_channels_and_cover_an_image_of_any_size(model, size):
    with torch.no_grad():
        maps = model(torch.randn(2, 3, *size))
    for level, channels, stride in zip(
        maps, model.channels, model.strides, strict=True
    ):
        assert level.shape == (2, channels, *(-(-side // stride) for side in size))


def test_the_last_map_is_what_timm_gives_its_classifier(model):
    """Before the norm; of Swin with the channels last."""
    image, options = torch.randn(1, 3, 224, 224), KINDS[model.model_name]
    size = {key: value for key, value in options.items() if key == 'img_size'}
    if 'convnext' not in model.model_name:
        size['dynamic_img_size'] = True
    reference = timm.create_model(model.model_name, **size).eval()
    lacking = reference.load_state_dict(model.timm_model.state_dict(), strict=False)
    assert not lacking.unexpected_keys
    assert all(key.startswith(('norm.', 'fc_', 'head')) for key in lacking.missing_keys)
    with torch.no_grad():
        last, expected = model(image)[-1], reference.forward_features(image)
        if expected.ndim == 3:
            expected = expected[:, reference.num_prefix_tokens :]
            last = last.flatten(2).transpose(1, 2)
        elif 'swin' in model.model_name:
            last = last.permute(0, 2, 3, 1)
        if 'convnext' not in model.model_name:
            last = reference.norm(last)
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)


@every_kind
def test_every_parameter_is_trained(name):
    model = TimmFeatures(name, **KINDS[name]).train()
    sum(level.square().mean() for level in model(torch.randn(1, 3, 64, 64))).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None]


def test_padding_is_at_the_right_and_the_bottom():
    model = small()
    image = torch.randn(1, 3, 70, 90)
    padded = torch.zeros(1, 3, 80, 96)
    padded[:, :, :70, :90] = image
    with torch.no_grad():
        pairs = zip(model(image), model(padded), strict=True)
    for level, expected in pairs:
        torch.testing.assert_close(level, expected)


def test_it_is_a_backbone_of_mmseg():
    with DefaultScope.overwrite_default_scope('mmseg'):
        backbone = dict(type='TimmFeatures', model_name='convnext_atto')
        assert isinstance(MODELS.build(backbone), TimmFeatures)


# Weights of a file


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A file as timm releases them: 224 x 224 pixels, with final norm and head."""
    torch.manual_seed(1)
    weights = timm.create_model('deit_tiny_patch16_224').state_dict()
    path = tmp_path_factory.mktemp('timm') / 'model.safetensors'
    save_file(weights, path)
    return path, weights


def test_a_file_of_another_resolution_is_loaded_with_a_report(file):
    path, weights = file
    model = small(pretrained(path))
    model.init_weights()
    found = model.timm_model.state_dict()
    report = model.load_report
    assert set(report.matched) == set(found) and not report.missing
    assert not report.unexpected and 'head.weight' in report.ignored
    assert report.resized == [('pos_embed', (1, 197, 192), (1, 17, 192))]
    for key, value in found.items():
        if key != 'pos_embed':
            assert torch.equal(value, weights[key]), key
    # The class token's position is kept; patches' are resized around their mean.
    assert torch.equal(found['pos_embed'][:, 0], weights['pos_embed'][:, 0])


def test_a_file_at_its_own_resolution_gives_timms_maps(file):
    path, weights = file
    model = small(pretrained(path), img_size=224)
    model.init_weights()
    reference = timm.create_model('deit_tiny_patch16_224').eval()
    reference.load_state_dict(weights)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = reference.forward_intermediates(
            image, indices=[3, 5, 7, 11], intermediates_only=True
        )
        for level, other in zip(model(image), expected, strict=True):
            torch.testing.assert_close(level, other)


def test_original_names_of_a_layer_scale_are_understood(tmp_path):
    model = timm.create_model('deit3_small_patch16_224')
    weights = {
        key.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): value
        for key, value in model.state_dict().items()
    }
    torch.save({'model': weights}, tmp_path / 'deit_3_small_224_1k.pth')
    ours = TimmFeatures(
        'deit3_small_patch16_224',
        **PLAIN,
        init_cfg=pretrained(tmp_path / 'deit_3_small_224_1k.pth'),
    )
    ours.init_weights()
    assert not ours.load_report.missing and not ours.load_report.unexpected


def test_the_backbone_of_a_trained_segmentor_is_loaded(tmp_path):
    trained = small()
    state = {f'backbone.{key}': v for key, v in trained.state_dict().items()}
    state['decode_head.conv_seg.weight'] = torch.zeros(1)
    torch.save({'state_dict': state}, tmp_path / 'iter_1.pth')
    model = small(pretrained(tmp_path / 'iter_1.pth'))
    model.init_weights()
    assert len(model.load_report.matched) == len(trained.state_dict())
    assert model.load_report.ignored == ['decode_head.conv_seg.weight']
    for key, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[key])


def test_a_file_without_a_key_of_the_model_is_refused(tmp_path):
    save_file({'other.weight': torch.zeros(2)}, tmp_path / 'other.safetensors')
    model = small(pretrained(tmp_path / 'other.safetensors'))
    with pytest.raises(UserError, match='holds no key of the backbone') as error:
        model.init_weights()
    assert 'model.backbone.init_cfg=None' in str(error.value)


@pytest.mark.parametrize('name', ['vit_tiny_r_s16_p8_224', 'deit3_small_patch16_224'])
def test_a_file_of_another_model_is_refused_by_name(file, name):
    model = TimmFeatures(name, (3, 5), init_cfg=pretrained(file[0]))
    with pytest.raises(UserError, match=f'does not fit {name}'):
        model.init_weights()


def test_the_code_of_a_file_is_not_run(tmp_path):
    marker = tmp_path / 'ran'

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / 'evil.pth').write_bytes(pickle.dumps({'model': Evil()}))
    with pytest.raises(UserError):
        small(pretrained(tmp_path / 'evil.pth')).init_weights()
    assert not marker.exists()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no\.safetensors'):
        small(pretrained(tmp_path / 'no.safetensors')).init_weights()


# Arguments


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(model_name='convnext_ato'), 'the nearest: convnext_atto'),
        (dict(img_size=64), 'img_size=64: convnext_atto of timm takes no img_size'),
        (dict(out_indices=(0, 4)), 'increasing numbers from 0 to 3'),
        (dict(out_indices=(1, 0)), 'increasing numbers from 0 to 3'),
        (dict(out_indices=()), 'increasing numbers from 0 to 3'),
    ],
)
def test_a_wrong_argument_is_named(options, text):
    with pytest.raises(UserError, match=text.replace('(', r'\(')):
        TimmFeatures(**dict(dict(model_name='convnext_atto'), **options))


def test_another_kind_of_init_cfg_is_refused():
    with pytest.raises(UserError, match="dict\\(type='Pretrained'"):
        small(dict(type='Kaiming')).init_weights()


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(UserError, match=r'\(1, 1, 32, 32\)'):
        small()(torch.zeros(1, 1, 32, 32))


def test_negative_indices_count_from_the_end():
    assert small(out_indices=(-2, -1)).out_indices == (10, 11)


def test_blocks_after_the_last_map_are_not_built():
    assert len(small(out_indices=(0, 2)).timm_model.blocks) == 3
