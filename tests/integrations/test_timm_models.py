import numpy as np
import pytest
import torch

from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import RELEASED, load_released

timm = pytest.importorskip('timm')
data = pytest.importorskip('timm.data')
optim = pytest.importorskip('timm.optim')

MICRO = dict(embed_dims=48, num_layers=3, num_heads=3)
NAME = 'illama_tiny_patch16_224'
SIZES = [
    (arch, size) for arch in ('tiny', 'small', 'base', 'large') for size in (224, 384)
]


def micro(name=NAME, **options):
    options = dict(arch=MICRO, img_size=32, patch_size=8, num_classes=10) | options
    return timm.create_model(name, **options).eval()


def pretrained(path, **options):
    overlay = dict(file=str(path))
    return micro(pretrained=True, pretrained_cfg_overlay=overlay, **options)


@pytest.fixture
def image(golden):
    return torch.from_numpy(golden['image'])


# Equal to the released code


@pytest.mark.parametrize('rate', [0.0, 0.25, 1.0])
def test_logits_equal_those_of_the_released_code(
    golden, golden_checkpoint, image, relative_error, rate
):
    model = pretrained(golden_checkpoint, soft_mask_rate=rate)
    assert relative_error(model(image), golden[f'logits_rate{rate}']) < 1e-5


def test_released_keys_fit_as_they_are(
    golden, golden_checkpoint, image, relative_error
):
    model = micro()
    assert relative_error(model(image), golden['logits_rate0.0']) > 0.1
    model.load_state_dict(load_released(golden_checkpoint), strict=True)
    assert relative_error(model(image), golden['logits_rate0.0']) < 1e-5


def test_features_equal_those_of_the_released_code(
    golden, golden_checkpoint, image, relative_error
):
    model = pretrained(golden_checkpoint, features_only=True, out_indices=(0, 2))
    for output, index in zip(model(image), (0, 2), strict=True):
        tokens = torch.from_numpy(golden['blocks_rate0.0'][index])
        expected = tokens[:, :-1].transpose(1, 2).reshape(2, 48, 4, 4)
        assert relative_error(output, expected) < 1e-5


@pytest.mark.parametrize(
    ('name', 'options', 'expected'),
    [
        ('tiny_patch16_224', {}, 5_701_096),
        ('small_patch16_224', {}, 22_018_024),
        ('base_patch16_224', {}, 86_502_376),
        ('large_patch16_224', {}, 310_445_032),
        ('base_patch16_384', {}, 86_794_216),
        ('large_patch16_384', {}, 310_834_152),
        ('tiny_patch16_224', dict(img_size=384, num_classes=0), 5_581_056),
    ],
)
def test_models_have_as_many_parameters_as_the_released(name, options, expected):
    with torch.device('meta'):
        model = timm.create_model(f'illama_{name}', **options)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


# Loading


def test_positions_are_resized_with_the_class_slot_kept(
    golden, golden_checkpoint, relative_error
):
    model = pretrained(golden_checkpoint, img_size=48)
    assert relative_error(model.pos_embed, golden['pos_embed_6x6']) < 1e-5
    official = load_released(golden_checkpoint)['pos_embed']
    assert torch.equal(model.pos_embed[:, -1], official[:, -1])


@pytest.mark.parametrize('num_classes', [7, 0])
def test_another_number_of_classes_leaves_the_classifier_out(
    num_classes, golden_checkpoint, image, caplog
):
    whole = pretrained(golden_checkpoint)
    with caplog.at_level('WARNING', 'illama_seg'):
        model = pretrained(golden_checkpoint, num_classes=num_classes)
    said = 'has 10 classes in the checkpoint and 7 in the model' in caplog.text
    assert said == (num_classes == 7)
    assert torch.equal(model.forward_features(image), whole.forward_features(image))
    assert model(image).shape == (2, num_classes or 48)


def test_features_only_loads_what_it_keeps_and_warns_of_nothing(
    golden_checkpoint, caplog
):
    with caplog.at_level('WARNING', 'illama_seg'):
        model = pretrained(golden_checkpoint, features_only=True, out_indices=(0, 1))
    assert not caplog.records
    assert len(model.model.blocks) == 2
    expected = load_released(golden_checkpoint)
    for key, value in model.model.state_dict().items():
        assert torch.equal(value, expected[key].float()), key


def test_a_file_that_runs_code_is_refused(golden_checkpoint, tmp_path):
    class Attack:
        def __reduce__(self):
            return (tmp_path / 'marker').touch, ()

    torch.save({'model': {}, 'args': Attack()}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='was refused, and nothing in it was run'):
        pretrained(tmp_path / 'x.pth')
    assert not (tmp_path / 'marker').exists()


def test_weights_are_kept_in_the_cache_that_is_given(
    golden_checkpoint, tmp_path, monkeypatch
):
    asked = []

    def download(url, path, *args, **options):
        asked.append(url)
        path.write_bytes(golden_checkpoint.read_bytes())

    monkeypatch.setattr('illama_seg.checkpoints.reading.download', download)
    micro(pretrained=True, cache_dir=str(tmp_path))
    name = 'illama-tiny-in1k-75.0.pth'
    assert asked == [RELEASED[name].url]
    assert (tmp_path / name).read_bytes() == golden_checkpoint.read_bytes()


def test_where_nothing_was_released_the_error_says_what_was():
    with pytest.raises(ValueError) as error:
        micro('illama_tiny_patch16_384', pretrained=True)
    for text in ('illama_tiny_patch16_384', NAME + '.in1k', 'pretrained_cfg_overlay'):
        assert text in str(error.value)


# The registry


def test_every_released_file_is_a_tag_of_its_model():
    urls = {}
    for name in timm.list_models('illama_*', pretrained=True):
        urls[name] = timm.get_pretrained_cfg(name).url
    assert sorted(urls.values()) == sorted(file.url for file in RELEASED.values())
    expected = {
        f'illama_{file.arch}_patch16_{file.img_size}.'
        + ('in21k_ft_in1k' if 'in21kin1k' in name else 'in1k'): file.url
        for name, file in RELEASED.items()
    }
    assert urls == expected


@pytest.mark.parametrize(('arch', 'img_size'), SIZES)
def test_models_are_registered_with_the_evaluation_of_the_paper(arch, img_size):
    with torch.device('meta'):
        model = timm.create_model(f'illama_{arch}_patch16_{img_size}')
    assert model.grid_size == (img_size // 16, img_size // 16)
    config = data.resolve_model_data_config(model)
    assert config['input_size'] == (3, img_size, img_size)
    assert config['interpolation'] == 'bicubic'
    expected = {224: (0.875, 'center'), 384: (1.0, 'squash')}[img_size]
    assert (config['crop_pct'], config['crop_mode']) == expected
    assert config['mean'] == data.IMAGENET_DEFAULT_MEAN
    assert config['std'] == data.IMAGENET_DEFAULT_STD


# timm's interface


def test_the_parts_of_a_forward_pass_make_the_whole(image):
    model = micro()
    tokens = model.forward_features(image)
    assert tokens.shape == (2, 17, 48)
    assert torch.equal(model.forward_head(tokens), model(image))
    read = model.forward_head(tokens, pre_logits=True)
    assert torch.equal(read, tokens[:, -1])
    assert torch.equal(model.get_classifier()(read), model(image))
    model.reset_classifier(4)
    assert model(image).shape == (2, 4) and model.num_classes == 4
    model.reset_classifier(0, 'avg')
    assert torch.allclose(model(image), tokens[:, :-1].mean(1))
    model.reset_classifier(0, '')
    assert torch.equal(model(image), tokens)


@pytest.mark.parametrize('indices', [None, 2, (0, 2), [-1], 1])
@pytest.mark.parametrize('norm', [False, True])
@pytest.mark.parametrize('output_fmt', ['NCHW', 'NLC'])
def test_intermediates_are_those_of_the_backbone(indices, norm, output_fmt):
    model, image = micro(), torch.randn(2, 3, 30, 50)
    options = dict(indices=indices, norm=norm, output_fmt=output_fmt)
    final, maps = model.forward_intermediates(image, **options)
    assert torch.equal(final, model.forward_features(image))
    taken = {None: [0, 1, 2], 2: [1, 2], (0, 2): [0, 2], 1: [2]}
    taken = [2] if isinstance(indices, list) else taken[indices]
    backbone = ILLaMA(MICRO, 32, 8, out_indices=taken, out_type='raw').eval()
    backbone.load_state_dict(model.state_dict(), strict=False)
    for actual, tokens in zip(maps, backbone(image), strict=True):
        tokens = (model.norm(tokens) if norm else tokens)[:, :-1]
        if output_fmt == 'NCHW':
            tokens = tokens.transpose(1, 2).reshape(2, 48, 4, 7)
        assert torch.equal(actual, tokens)
    alone = model.forward_intermediates(image, **options, intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, maps, strict=True))


def test_stopping_early_runs_no_block_after_the_last_one_wanted(image):
    model = micro()
    _, expected = model.forward_intermediates(image, [0, 1])
    model.blocks[2].register_forward_hook(lambda *args: pytest.fail('was run'))
    final, maps = model.forward_intermediates(image, [0, 1], stop_early=True)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))
    patches = final[:, :-1].transpose(1, 2).reshape(2, 48, 4, 4)
    (normed,) = model.forward_intermediates(
        image, [1], norm=True, stop_early=True, intermediates_only=True
    )
    assert torch.equal(patches, normed)


@pytest.mark.parametrize('size', [(32, 32), (40, 72), (17, 33)])
def test_features_of_any_image_size_and_their_description(size):
    model = micro(features_only=True)
    assert model.feature_info.channels() == [48, 48, 48]
    assert model.feature_info.reduction() == [8, 8, 8]
    grid = tuple(-(-side // 8) for side in size)
    shapes = [tuple(out.shape) for out in model(torch.randn(1, 3, *size))]
    assert shapes == [(1, 48, *grid)] * 3


def test_every_parameter_of_the_feature_extractor_gets_a_gradient(image):
    model = micro(features_only=True, out_indices=(0, 1))
    sum(out.pow(2).sum() for out in model(image)).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_checkpointed_blocks_give_the_same_gradients(image):
    model, gradients = micro().train(), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        assert model.with_cp == enable
        model.zero_grad()
        model(image).pow(2).sum().backward()
        gradients.append(model.blocks[0].attn.qkv.weight.grad)
    assert torch.allclose(*gradients, atol=1e-6)


def test_timms_optimiser_decays_and_scales_the_right_parameters():
    model = micro()
    undecayed = model.no_weight_decay()
    groups = optim.param_groups_layer_decay(model, 0.05, undecayed, layer_decay=0.5)
    names = {id(p): n for n, p in model.named_parameters()}
    found = {
        names[id(p)]: (group['weight_decay'], group['lr_scale'])
        for group in groups
        for p in group['params']
    }
    assert found['pos_embed'] == found['cls_token'] == (0.0, 0.5**4)
    assert found['patch_embed.proj.weight'] == (0.05, 0.5**4)
    assert found['blocks.0.attn.qkv.weight'] == (0.05, 0.5**3)
    assert found['blocks.2.norm1.weight'] == (0.0, 0.5)
    assert found['head.weight'] == (0.05, 1.0)


def test_dropout_and_drop_path_reach_their_layers():
    model = micro(drop_rate=0.3, drop_path_rate=0.2)
    assert model.head_drop.p == 0.3
    rates = [block.drop_path.rate for block in model.blocks]
    assert np.allclose(rates, [0, 0.1, 0.2])


def test_mistakes_are_named(image):
    with pytest.raises(ValueError, match=r"global_pool='max': expected one of"):
        micro(global_pool='max')
    with pytest.raises(ValueError, match=r"output_fmt='NHWC': expected 'NCHW'"):
        micro().forward_intermediates(image, output_fmt='NHWC')
    with pytest.raises(ValueError, match=r'expected one multiple of patch_size'):
        micro(img_size=33)
    with pytest.raises(TypeError, match='qkv_bias'):
        micro(qkv_bias=False)
