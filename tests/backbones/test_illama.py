import math
import os

import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import load_released
from illama_seg.layers.attention_dispatch import available_implementations

MICRO = dict(embed_dims=48, num_layers=3, num_heads=3)
NANO = dict(embed_dims=8, num_layers=2, num_heads=2)

# Triton's interpreter runs the golden tests from tests/layers/test_attention.py.
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
CPU_IMPLEMENTATIONS = available_implementations('cpu', torch.float32, 16)
IMPLEMENTATIONS = ('triton',) if INTERPRETED else CPU_IMPLEMENTATIONS


def nano(**options):
    """A backbone of a few weights, filled so that every part of it matters."""
    options = dict(arch=NANO, img_size=16, patch_size=4, out_indices=(0, 1)) | options
    model = ILLaMA(**options)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return model


def micro(checkpoint, impl='auto', **options):
    """The model of the golden file."""
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    options = dict(img_size=32, patch_size=8, out_type='raw') | options
    options = dict(arch=MICRO, out_indices=(0, 1, 2), init_cfg=init_cfg) | options
    model = ILLaMA(**options)
    model.init_weights()
    for block in model.blocks:
        block.attn.impl = impl
    return model


def classify(checkpoint, token, with_norm=True):
    """The final norm and the classifier of a released file, by hand, in float32."""
    weights = {key: value.float() for key, value in load_released(checkpoint).items()}
    if with_norm:
        token = token / (token.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        token = token * weights['norm.weight']
    return F.linear(token, weights['head.weight'], weights['head.bias'])


# Equal to the released code


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize('rate', [0.0, 0.25, 1.0])
def test_equals_the_released_code(
    golden, golden_checkpoint, relative_error, rate, impl
):
    model = micro(golden_checkpoint, impl=impl, soft_mask_rate=rate).eval()
    outputs = model(torch.from_numpy(golden['image']))
    for output, expected in zip(outputs, golden[f'blocks_rate{rate}'], strict=True):
        assert relative_error(output, expected) < 1e-5
    logits = classify(golden_checkpoint, outputs[-1][:, -1])
    assert relative_error(logits, golden[f'logits_rate{rate}']) < 1e-5


@pytest.mark.parametrize('impl', IMPLEMENTATIONS)
@pytest.mark.parametrize('rate', [0.0, 0.25])
def test_gradients_equal_those_of_the_released_code(
    golden, golden_checkpoint, relative_error, rate, impl
):
    model = micro(golden_checkpoint, impl=impl, soft_mask_rate=rate, out_indices=-1)
    image = torch.from_numpy(golden['image']).requires_grad_()
    logits = classify(golden_checkpoint, model(image)[0][:, -1])
    (logits.pow(2).sum() / 2).backward()
    assert relative_error(image.grad, golden[f'grad_image_rate{rate}']) < 1e-5
    gradient = model.blocks[0].attn.qkv.weight.grad
    assert relative_error(gradient, golden[f'grad_qkv0_rate{rate}']) < 1e-5


@pytest.mark.parametrize('rate', [0.0, 0.25, 1.0])
def test_class_token_and_final_norm_equal_those_of_the_released_code(
    golden, golden_checkpoint, relative_error, rate
):
    options = dict(out_type='cls_token', out_indices=(2,), soft_mask_rate=rate)
    (token,) = micro(golden_checkpoint, **options)(torch.from_numpy(golden['image']))
    logits = classify(golden_checkpoint, token, with_norm=False)
    assert relative_error(logits, golden[f'logits_rate{rate}']) < 1e-5


def test_released_logits_tell_the_rates_apart(golden, relative_error):
    errors = [
        relative_error(golden[f'logits_rate{a}'], golden[f'logits_rate{b}'])
        for a, b in ((0.0, 0.25), (0.25, 1.0), (0.0, 1.0))
    ]
    assert min(errors) > 1e-2


# Parameters


@pytest.mark.parametrize(
    ('arch', 'img_size', 'expected'),
    [
        ('tiny', 224, 5_701_096),
        ('small', 224, 22_018_024),
        ('base', 224, 86_502_376),
        ('large', 224, 310_445_032),
        ('base', 384, 86_794_216),
        ('large', 384, 310_834_152),
    ],
)
def test_classifiers_have_as_many_parameters_as_the_released(arch, img_size, expected):
    with torch.device('meta'):
        backbone = ILLaMA(arch, img_size, out_type='cls_token', out_indices=-1)
        head = nn.Linear(backbone.embed_dims, 1000)
    parameters = [*backbone.parameters(), *head.parameters()]
    assert sum(parameter.numel() for parameter in parameters) == expected


def test_state_dict_has_the_released_names(golden_checkpoint):
    model = ILLaMA(MICRO, 32, 8, out_indices=-1, out_type='cls_token')
    released = {
        key: value.shape
        for key, value in load_released(golden_checkpoint).items()
        if not key.startswith('head.')
    }
    assert {key: p.shape for key, p in model.state_dict().items()} == released


@pytest.mark.parametrize('out_type', ['featmap', 'cls_token'])
@pytest.mark.parametrize(
    'mask',
    [
        dict(attn_mask='strict'),
        dict(soft_mask_rate=0.0),
        dict(soft_mask_rate=0.25),
        dict(soft_mask_rate=1.0),
    ],
)
def test_every_parameter_gets_a_gradient(out_type, mask):
    model = nano(out_type=out_type, **mask)
    sum(out.pow(2).sum() for out in model(torch.randn(2, 3, 16, 16))).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing


@pytest.mark.parametrize('out_type', ['featmap', 'raw'])
def test_final_norm_is_built_for_the_class_token_only(out_type):
    assert hasattr(nano(out_type='cls_token'), 'norm')
    assert not hasattr(nano(out_type=out_type), 'norm')


def test_initial_weights_are_normal_biases_zero_and_norms_one():
    model = ILLaMA(
        dict(embed_dims=96, num_layers=2, num_heads=2),
        img_size=128,
        patch_size=8,
        out_indices=-1,
        out_type='cls_token',
    )
    model.init_weights()
    for name, parameter in model.named_parameters():
        if name.startswith('patch_embed.'):
            continue  # a convolution: torch's default, as in the released code
        if 'norm' in name:
            assert parameter.eq(1).all(), name
        elif name.endswith('bias'):
            assert parameter.eq(0).all(), name
        else:
            few = parameter.numel() < 1000
            std, tolerance = parameter.std().item(), 0.3 if few else 0.05
            assert std == pytest.approx(0.02, rel=tolerance), name
            assert abs(parameter.mean().item()) < (0.01 if few else 0.001), name


# Shapes and sizes


@given(
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    out_type=st.sampled_from(['featmap', 'cls_token', 'raw']),
    attn_mask=st.sampled_from(['soft', 'strict']),
)
def test_any_image_size_gives_outputs_of_its_grid(height, width, out_type, attn_mask):
    model = nano(out_type=out_type, attn_mask=attn_mask)
    grid = math.ceil(height / 4), math.ceil(width / 4)
    shape = {
        'featmap': (2, 8, *grid),
        'cls_token': (2, 8),
        'raw': (2, grid[0] * grid[1] + 1, 8),
    }[out_type]
    outputs = model(torch.randn(2, 3, height, width))
    assert isinstance(outputs, tuple)
    assert [tuple(output.shape) for output in outputs] == [shape, shape]
    assert all(output.isfinite().all() for output in outputs)


def test_image_is_padded_with_zeros_at_its_right_and_bottom():
    model, image = nano(), torch.randn(1, 3, 9, 14)
    padded = torch.zeros(1, 3, 12, 16)
    padded[..., :9, :14] = image
    for output, expected in zip(model(image), model(padded), strict=True):
        assert torch.equal(output, expected)


@given(sizes=st.lists(st.tuples(*[st.integers(1, 40)] * 2), min_size=2, max_size=4))
def test_any_size_follows_any_other_without_a_trace(sizes):
    used = nano()
    for size in sizes:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            for output, expected in zip(used(image), nano()(image), strict=True):
                assert torch.equal(output, expected)


@pytest.mark.parametrize('context', [torch.inference_mode, torch.no_grad])
def test_a_size_first_seen_in_inference_trains_later(context):
    model, image = nano(), torch.randn(1, 3, 40, 24)
    with context():
        seen = model(image)[-1].clone()
    output = model(image)[-1]
    output.sum().backward()
    assert torch.equal(output, seen)
    assert model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0


def test_float64_runs_in_float64_at_any_size():
    model = nano().double()
    model(torch.randn(1, 3, 16, 16, dtype=torch.float64))
    output = model(torch.randn(1, 3, 40, 40, dtype=torch.float64))[-1]
    assert output.dtype == torch.float64


def test_an_average_of_models_is_updated_between_images_of_any_size():
    model = nano()
    average = ExponentialMovingAverage(model, momentum=0.5, update_buffers=True)
    for size in (16, 40, 8):
        model(torch.randn(1, 3, size, size))
        average.update_parameters(model)
    assert average.module(torch.randn(1, 3, 16, 16))[-1].isfinite().all()


def test_the_rate_may_change_between_forward_and_backward():
    model, image = nano(soft_mask_rate=0.5), torch.randn(1, 3, 16, 16)
    gradients = []
    for rate in (0.5, 0.0):
        output = model(image)[-1]
        model.set_soft_mask_rate(rate)
        output.sum().backward()
        gradients.append(model.cls_token.grad.clone())
        model.zero_grad()
        model.set_soft_mask_rate(0.5)
    assert torch.equal(*gradients)


def test_gradients_at_rate_one_are_those_of_finite_differences(
    golden, golden_checkpoint
):
    # The golden file has gradients for 0 and 0.25.
    model = micro(golden_checkpoint, soft_mask_rate=1.0, out_indices=-1).double()
    image = torch.from_numpy(golden['image']).double().requires_grad_()
    step = torch.randn(image.shape, dtype=torch.float64) * 1e-5

    def loss(x):
        return model(x)[0].pow(2).sum() / 2

    (gradient,) = torch.autograd.grad(loss(image), image)
    difference = (loss(image + step) - loss(image - step)) / 2
    torch.testing.assert_close(difference, (gradient * step).sum(), rtol=1e-6, atol=0)


def test_img_size_may_be_a_rectangle():
    model = ILLaMA(NANO, img_size=(8, 20), patch_size=4, out_indices=-1)
    assert model.grid_size == (2, 5)
    assert model.pos_embed.shape == (1, 11, 8)
    assert model(torch.randn(1, 3, 8, 20))[0].shape == (1, 8, 2, 5)


def test_positions_are_added_in_raster_order_without_resizing_at_img_size():
    model = nano(img_size=(8, 12), out_type='raw')
    image = torch.randn(1, 3, 8, 12)
    inputs = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model(image)
    patches = model.patch_embed.proj(image).flatten(2).transpose(1, 2)
    tokens = torch.cat([patches, model.cls_token], dim=1) + model.pos_embed
    assert torch.equal(inputs[0], tokens)


# The class token


def test_class_token_is_the_last_one():
    options = dict(attn_mask='strict')
    raw = nano(out_type='raw', **options)
    normed = nano(out_type='cls_token', **options)
    maps = nano(out_type='featmap', **options)
    normed.load_state_dict(raw.state_dict(), strict=False)
    image = torch.randn(2, 3, 8, 12)
    for tokens, token, featmap in zip(
        raw(image), normed(image), maps(image), strict=True
    ):
        assert torch.equal(normed.norm(tokens[:, -1]), token)
        assert torch.equal(featmap.flatten(2).transpose(1, 2), tokens[:, :-1])


@pytest.mark.parametrize('name', ['cls_token', 'pos_embed'])
def test_no_patch_sees_the_class_token_under_the_strict_mask(name):
    model, image = nano(out_type='raw', attn_mask='strict'), torch.randn(1, 3, 16, 16)
    before = model(image)
    with torch.no_grad():
        getattr(model, name)[:, -1] += 1
    for old, new in zip(before, model(image), strict=True):
        assert torch.equal(old[:, :-1], new[:, :-1])
        assert not torch.allclose(old[:, -1], new[:, -1])


def test_class_token_sees_every_patch_under_the_strict_mask():
    model = nano(out_type='cls_token', out_indices=-1, attn_mask='strict')
    image = torch.randn(1, 3, 16, 16, requires_grad=True)
    model(image)[0].sum().backward()
    assert (image.grad.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum((1, 4, 5)) > 0).all()


# The masks


def change_of_last_patch(model):
    """Feature maps before and after the last patch of the image changes."""
    image = torch.randn(1, 3, 16, 16)
    other = image.clone()
    other[..., -4:, -4:] += 1
    with torch.no_grad():
        pairs = zip(model(image), model(other), strict=True)
        return [(old.flatten(2), new.flatten(2)) for old, new in pairs]


def test_strict_mask_hides_the_last_patch_from_the_earlier_ones():
    for old, new in change_of_last_patch(nano(attn_mask='strict')):
        assert torch.equal(old[..., :-1], new[..., :-1])
        assert not torch.allclose(old[..., -1], new[..., -1])


def test_soft_mask_at_rate_zero_is_not_strictly_causal():
    for old, new in change_of_last_patch(nano(soft_mask_rate=0.0)):
        assert not torch.allclose(old[..., :-1], new[..., :-1])


def test_soft_mask_rate_moves_either_way(golden, golden_checkpoint, relative_error):
    model, image = micro(golden_checkpoint), torch.from_numpy(golden['image'])
    assert model.soft_mask_rate == 0
    for rate in (0.25, 1.0, 0.0, 1.0, 0.25, 0.0):
        model.set_soft_mask_rate(rate)
        assert model.soft_mask_rate == rate
        expected = golden[f'blocks_rate{rate}'][-1]
        assert relative_error(model(image)[-1], expected) < 1e-5


@pytest.mark.parametrize('rate', [-0.1, 1.1, math.nan, math.inf])
def test_soft_mask_rate_out_of_range_is_refused(rate):
    model = nano(soft_mask_rate=0.5)
    with pytest.raises(ValueError, match=rf'soft_mask_rate={rate}.*\[0, 1\]'):
        model.set_soft_mask_rate(rate)
    assert model.soft_mask_rate == 0.5


# Compilers


def compiled_nano(**options):
    torch._dynamo.reset()
    counters.clear()
    model = nano(**options)
    return model, torch.compile(model, fullgraph=True, backend='aot_eager')


def num_graphs():
    return counters['stats']['unique_graphs']


@pytest.mark.parametrize('attn_mask', ['soft', 'strict'])
@pytest.mark.parametrize('training', [False, True])
def test_compiled_whole_it_gives_the_same_outputs_and_gradients(attn_mask, training):
    model, compiled = compiled_nano(attn_mask=attn_mask)
    image, results = torch.randn(2, 3, 16, 16), []
    for call in (model.train(training), compiled):
        outputs = call(image)
        if training:
            sum(output.pow(2).sum() for output in outputs).backward()
        results.append([*outputs, *(p.grad for p in model.parameters() if training)])
        model.zero_grad(set_to_none=True)
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)
    assert num_graphs() == 1


def test_compiled_once_for_every_soft_mask_rate():
    model, compiled = compiled_nano()
    image = torch.randn(1, 3, 16, 16)
    for rate in (0.0, 0.9, 0.4, 1.0, 0.0):
        model.set_soft_mask_rate(rate)
        torch.testing.assert_close(compiled(image), model(image))
    assert num_graphs() == 1


@pytest.mark.slow
def test_compiled_at_most_twice_for_other_sizes():
    (_, compiled), eager = compiled_nano(), nano()
    for size in ((16, 16), (24, 12), (13, 18), (16, 40), (17, 16), (32, 32), (9, 41)):
        image = torch.randn(1, 3, *size)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(image), eager(image))
    assert num_graphs() <= 2


@pytest.mark.parametrize('attn_mask', ['soft', 'strict'])
def test_exported_it_gives_the_same_outputs(attn_mask):
    model, image = nano(attn_mask=attn_mask).eval(), torch.randn(1, 3, 16, 12)
    program = torch.export.export(model, (image,))
    torch.testing.assert_close(program.module()(image), model(image))


# Training options


@pytest.mark.parametrize('attn_mask', ['soft', 'strict'])
def test_checkpointing_changes_no_output_and_no_gradient(attn_mask):
    image, results, calls = torch.randn(4, 3, 16, 16), [], []
    for with_cp in (False, True):
        options = dict(attn_mask=attn_mask, drop_path_rate=0.5)
        model = nano(with_cp=with_cp, **options).train()
        count = []
        model.blocks[0].register_forward_pre_hook(lambda *_, c=count: c.append(1))
        torch.manual_seed(3)
        outputs = model(image)
        sum(output.pow(2).sum() for output in outputs).backward()
        results.append((outputs, [p.grad for p in model.parameters()]))
        calls.append(len(count))
    assert calls == [1, 2]  # the second recomputes the block in the backward pass
    for plain, recomputed in zip(*results, strict=True):
        for one, other in zip(plain, recomputed, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    'options', [dict(soft_mask_rate=0.25), dict(attn_mask='strict')]
)
def test_bfloat16_autocast_is_close(options, golden, golden_checkpoint, relative_error):
    model = micro(golden_checkpoint, **options)
    image = torch.from_numpy(golden['image'])
    expected = model(image)[-1]
    with torch.autocast('cpu', torch.bfloat16):
        output = model(image)[-1]
    error = relative_error(output, expected)
    assert 0 < error < 0.03


def test_drop_path_grows_linearly_to_its_rate():
    model = ILLaMA(NANO | dict(num_layers=5), 16, 4, out_indices=-1, drop_path_rate=0.2)
    rates = [block.drop_path.rate for block in model.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_drop_path_works_in_training_only():
    model, image = nano(drop_path_rate=0.9), torch.randn(8, 3, 16, 16)
    assert torch.equal(model.eval()(image)[-1], nano()(image)[-1])
    assert not torch.allclose(model.train()(image)[-1], nano()(image)[-1])


def test_drop_path_rate_of_one_is_refused():
    with pytest.raises(ValueError, match=r'drop_path_rate=1\.0'):
        nano(drop_path_rate=1.0)


def test_depth_of_a_parameter_counts_from_the_embeddings():
    model = nano(out_type='cls_token')
    depths = {
        'patch_embed.proj.weight': 0,
        'patch_embed.proj.bias': 0,
        'cls_token': 0,
        'pos_embed': 0,
        'blocks.0.attn.qkv.weight': 1,
        'blocks.1.norm2.weight': 2,
        'norm.weight': 3,
    }
    for name, depth in depths.items():
        assert model.get_layer_depth(name) == (depth, 4)
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 4)
    assert model.get_layer_depth('decode_head.blocks.0.weight', 'backbone.') == (3, 4)
    deep = ILLaMA(NANO | dict(num_layers=12), 16, 4, out_indices=-1)
    assert deep.get_layer_depth('blocks.10.mlp.fc1.weight') == (11, 14)


# Out indices


@pytest.mark.parametrize(
    ('indices', 'blocks'),
    [(0, [0]), (-1, [3]), ((1,), [1]), ((-2, -1), [2, 3]), ([0, -2], [0, 2])],
)
def test_out_indices_count_from_both_ends(indices, blocks):
    options = dict(arch=NANO | dict(num_layers=4), out_type='raw')
    every = nano(out_indices=(0, 1, 2, 3), **options)
    some = nano(out_indices=indices, **options)
    some.load_state_dict(every.state_dict(), strict=False)
    image = torch.randn(1, 3, 16, 16)
    expected = every(image)
    outputs = some(image)
    assert len(outputs) == len(blocks)
    for output, block in zip(outputs, blocks, strict=True):
        assert torch.equal(output, expected[block])


def test_blocks_after_the_last_output_are_not_built():
    assert len(ILLaMA(NANO | dict(num_layers=9), 16, 4, out_indices=(1, 4)).blocks) == 5


# Arguments


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(arch='huge'), ["arch='huge'", "'tiny'", "'large'"]),
        (dict(arch=dict(embed_dims=8)), ["{'embed_dims': 8}", 'num_layers']),
        (dict(arch=NANO | dict(depth=2)), ["'depth': 2", 'num_heads']),
        (dict(arch=NANO | dict(embed_dims=9)), ["'embed_dims': 9", 'multiple']),
        (dict(arch=NANO | dict(num_heads=8)), ["'num_heads': 8", '2 * num_heads']),
        (dict(arch=NANO | dict(num_layers=0)), ["'num_layers': 0", 'positive']),
        (dict(out_indices=(0, 2)), ['out_indices=(0, 2)', 'from 0 to 1']),
        (dict(out_indices=-3), ['out_indices=-3', 'from 0 to 1']),
        (dict(out_indices=2), ['out_indices=2', 'from 0 to 1']),
        (dict(out_indices=(1, 0)), ['out_indices=(1, 0)', 'increasing']),
        (dict(out_indices=(1, 1)), ['out_indices=(1, 1)', 'increasing']),
        (dict(out_indices=(1, -1)), ['out_indices=(1, -1)', 'increasing']),
        (dict(out_indices=()), ['out_indices=()', 'increasing']),
        (dict(img_size=18), ['img_size=18', 'patch_size=4']),
        (dict(img_size=(16, 18)), ['img_size=(16, 18)', 'patch_size=4']),
        (dict(img_size=0), ['img_size=0', 'patch_size=4']),
        (dict(patch_size=0), ['img_size=16', 'patch_size=0']),
        (dict(out_type='map'), ["out_type='map'", "'featmap'", "'cls_token'", "'raw'"]),
        (dict(attn_mask='full'), ["attn_mask='full'", "'soft'", "'strict'"]),
        (dict(drop_path_rate=-0.1), ['drop_path_rate=-0.1', '[0, 1']),
        (dict(drop_path_rate=1.5), ['drop_path_rate=1.5', '[0, 1']),
        (dict(soft_mask_rate=2), ['soft_mask_rate=2', '[0, 1]']),
        (
            dict(soft_mask_rate=0.5, attn_mask='strict'),
            ['soft_mask_rate=0.5', "attn_mask='strict'", "attn_mask='soft'"],
        ),
    ],
    ids=str,
)
def test_bad_argument_is_named_with_its_value_and_what_is_expected(options, words):
    valid = dict(arch=NANO, img_size=16, patch_size=4, out_indices=(0, 1))
    with pytest.raises(ValueError) as error:
        ILLaMA(**valid | options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize('shape', [(1, 4, 8, 8), (3, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0)])
def test_input_that_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError) as error:
        nano()(torch.zeros(shape))
    assert '(B, 3, H, W)' in str(error.value) and str(shape) in str(error.value)


def test_in_channels_may_be_any_number():
    model = nano(in_channels=5)
    assert model(torch.randn(1, 5, 16, 16))[-1].shape == (1, 8, 4, 4)
    with pytest.raises(ValueError, match=r'\(B, 5, H, W\)'):
        model(torch.randn(1, 3, 16, 16))


# Registration and checkpoints


@pytest.mark.parametrize('registry', [MODELS, MMSEG_MODELS], ids=['mmengine', 'mmseg'])
def test_registry_builds_the_backbone_by_its_plain_name(registry):
    model = registry.build(
        dict(type='ILLaMA', arch=NANO, img_size=16, patch_size=4, out_indices=(1,))
    )
    assert type(model) is ILLaMA


def test_pretrained_file_of_another_resolution_is_resized(
    golden, golden_checkpoint, relative_error
):
    model = micro(golden_checkpoint, img_size=48)
    assert relative_error(model.pos_embed, golden['pos_embed_6x6']) < 1e-5
    weights = load_released(golden_checkpoint)
    assert torch.equal(model.cls_token, weights['cls_token'])
    assert torch.equal(model.pos_embed[:, -1], weights['pos_embed'][:, -1])


def test_resizing_at_loading_and_at_run_time_agree(golden_checkpoint):
    image = torch.randn(1, 3, 48, 48)
    small, large = (micro(golden_checkpoint, img_size=size) for size in (32, 48))
    torch.testing.assert_close(small(image), large(image))


def test_weights_are_loaded_once(golden_checkpoint):
    model = micro(golden_checkpoint)
    with torch.no_grad():
        model.cls_token.fill_(7)
    model.init_weights()
    assert model.cls_token.eq(7).all()


@pytest.mark.parametrize(
    'init_cfg',
    [
        dict(type='Normal', std=0.02),
        dict(type='Pretrained'),
        [dict(type='TruncNormal', layer='Linear')],
    ],
    ids=str,
)
def test_init_cfg_other_than_pretrained_is_refused(init_cfg):
    model = ILLaMA(NANO, 16, 4, out_indices=-1, init_cfg=init_cfg)
    with pytest.raises(ValueError, match=r'ILLaMA init_cfg=.*expected None or'):
        model.init_weights()


def test_init_cfg_may_be_a_list(golden_checkpoint):
    init_cfg = [dict(type='Pretrained', checkpoint=str(golden_checkpoint))]
    model = micro(golden_checkpoint, init_cfg=init_cfg)
    weights = load_released(golden_checkpoint)
    assert torch.equal(model.cls_token, weights['cls_token'])


# Frozen stages


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2])
@pytest.mark.parametrize('with_cp', [False, True])
def test_frozen_stages_get_no_gradient_and_the_others_do(frozen, with_cp):
    model = nano(frozen_stages=frozen, with_cp=with_cp).train()
    out = sum(map.square().mean() for map in model(torch.randn(2, 3, 16, 16)))
    if frozen == 2:
        assert not out.requires_grad
    else:
        out.backward()
    for name, parameter in model.named_parameters():
        depth, _ = model.get_layer_depth(name)
        is_trained = depth > frozen
        assert parameter.requires_grad == is_trained, name
        assert (parameter.grad is not None) == is_trained, name


def test_frozen_blocks_stay_in_evaluation_mode():
    model = nano(frozen_stages=1, drop_path_rate=0.5).train()
    assert [block.training for block in model.blocks] == [False, True]
    assert not model.patch_embed.training and model.training
    assert not any(module.training for module in model.eval().modules())


@pytest.mark.parametrize('frozen', [-2, 3])
def test_a_number_of_frozen_stages_that_there_is_not_is_refused(frozen):
    with pytest.raises(ValueError, match=f'frozen_stages={frozen}: expected -1'):
        nano(frozen_stages=frozen)
