"""The steps from the plain ViT to iLLaMA: arguments of one backbone (Table 17)."""

import pytest
import timm
import torch
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError

VIT = dict(
    ffn='mlp',
    norm='layer',
    attn_mask='bidirectional',
    cls_position='first',
    with_rotary=False,
)
ARCH = dict(embed_dims=24, num_layers=3, num_heads=3)


def filled(**options):
    """A small model, filled so that every part of it matters."""
    model = ILLaMA(ARCH, (24, 32), 8, out_indices=-1, **options)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model.eval()


def as_timm(model):
    """timm's ViT with the weights of ours, which have its names."""
    vit = timm.models.VisionTransformer(
        img_size=model.grid_size and tuple(8 * n for n in model.grid_size),
        patch_size=8,
        embed_dim=ARCH['embed_dims'],
        depth=ARCH['num_layers'],
        num_heads=ARCH['num_heads'],
        num_classes=0,
        dynamic_img_size=True,
    )
    vit.load_state_dict(model.state_dict())
    return vit.eval()


def test_all_parts_the_other_way_are_timms_vit():
    model = filled(out_type='cls_token', **VIT)
    image = torch.randn(2, 3, 24, 32)
    (token,) = model(image)
    torch.testing.assert_close(token, as_timm(model)(image), rtol=1e-4, atol=1e-5)


def test_feature_maps_of_the_plain_vit_leave_the_first_token_out():
    model = filled(**VIT)
    full = filled(out_type='cls_token', **VIT)
    vit = as_timm(full)
    vit.norm = nn.Identity()
    image = torch.randn(1, 3, 24, 32)
    expected = vit.forward_features(image)[:, 1:].transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(model(image)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('arch', 'name'),
    [('tiny', 'vit_tiny_patch16_224'), ('base', 'vit_base_patch16_224')],
)
def test_the_plain_vit_has_timms_parameters(arch, name):
    with torch.device('meta'):
        ours = ILLaMA(arch, out_type='cls_token', out_indices=-1, **VIT).state_dict()
        vit = timm.create_model(name, num_classes=0).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in vit.items()}


@pytest.mark.parametrize('part', ['ffn', 'norm', 'cls_position', 'with_rotary'])
def test_every_part_changes_what_is_computed(part):
    image = torch.randn(1, 3, 24, 32)
    illama = filled(out_type='cls_token')
    other = filled(out_type='cls_token', **{part: VIT[part]})
    shared = {k: v for k, v in illama.state_dict().items() if k in other.state_dict()}
    if part != 'ffn':
        other.load_state_dict(shared, strict=False)
    assert not torch.allclose(illama(image)[0], other(image)[0], atol=1e-3)


def test_positions_can_be_left_to_the_rotary_ones():
    model = filled(out_type='cls_token', with_pos_embed=False)
    assert 'pos_embed' not in dict(model.named_parameters())
    full = filled(out_type='cls_token')
    full.load_state_dict(model.state_dict(), strict=False)
    nn.init.zeros_(full.pos_embed)
    image = torch.randn(1, 3, 24, 40)  # another size too
    assert torch.equal(model(image)[0], full(image)[0])


def test_without_any_position_bidirectional_tokens_are_a_set():
    options = dict(with_pos_embed=False, with_rotary=False, attn_mask='bidirectional')
    model = filled(out_type='cls_token', **options)
    image = torch.randn(1, 3, 24, 32)
    turned = image.unflatten(3, (4, 8)).flip(3).flatten(3)  # the patches of a row
    torch.testing.assert_close(model(image)[0], model(turned)[0])


# The collapse of step 4 and its cures


def tokens_of_two_images(**options):
    model = filled(out_type='cls_token', **options)
    return model(torch.randn(2, 3, 24, 32))[0]


def test_a_class_token_first_under_the_strict_mask_is_the_same_for_all_images():
    one, other = tokens_of_two_images(attn_mask='strict', cls_position='first')
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    'cure',
    [
        dict(attn_mask='strict', cls_position='last'),
        dict(attn_mask='modified', cls_position='first'),
        # Not causal: its denominators carry a trace of the whole image.
        dict(attn_mask='soft', cls_position='first'),
    ],
)
def test_a_class_token_last_or_unmasked_or_softly_masked_sees_the_image(cure):
    one, other = tokens_of_two_images(**cure)
    assert (one - other).abs().max() > 1e-3


def test_the_modified_mask_hides_the_future_from_all_but_the_class_token():
    model = filled(attn_mask='modified', cls_position='first', out_type='raw')
    image = torch.randn(1, 3, 24, 32)
    changed = image.clone()
    changed[..., 16:, 24:] += 1  # the last patch
    x, y = model(image)[0][0], model(changed)[0][0]
    # The class token tells the next block's patches of it, so look at one block.
    one = ILLaMA(
        ARCH | dict(num_layers=1),
        (24, 32),
        8,
        out_indices=0,
        out_type='raw',
        attn_mask='modified',
        cls_position='first',
    )
    one.load_state_dict(model.state_dict(), strict=False)
    x, y = one(image)[0][0], one(changed)[0][0]
    assert torch.equal(x[1:-1], y[1:-1])
    assert not torch.equal(x[0], y[0])


def test_bidirectional_attention_is_the_soft_mask_at_rate_one():
    image = torch.randn(1, 3, 24, 32)
    soft = filled(out_type='cls_token', soft_mask_rate=1.0)
    without = filled(out_type='cls_token', attn_mask='bidirectional')
    torch.testing.assert_close(soft(image)[0], without(image)[0])


# Bad input


@pytest.mark.parametrize(
    ('option', 'value'),
    [('ffn', 'gelu'), ('norm', 'batch'), ('cls_position', 'middle')],
)
def test_an_unknown_part_is_refused_with_the_known_ones(option, value):
    with pytest.raises(ValueError, match=f'{option}={value!r}: expected one of'):
        ILLaMA(**{option: value})


def test_the_modified_mask_is_for_a_class_token_at_the_start():
    with pytest.raises(ValueError, match="cls_position='first'"):
        ILLaMA(attn_mask='modified')


def test_a_released_file_is_refused_by_a_plain_vit(golden_checkpoint):
    micro = dict(embed_dims=48, num_layers=3, num_heads=3)
    init_cfg = dict(type='Pretrained', checkpoint=str(golden_checkpoint))
    options = dict(out_indices=-1, init_cfg=init_cfg, **VIT)
    with pytest.raises(ValueError, match=r'mlp\.fc3'):
        ILLaMA(micro, 32, 8, **options).init_weights()


@pytest.mark.parametrize('queries', [0, 2])
def test_the_last_blocks_alone_may_be_open(queries):
    """The first ones are those of a closed mask, the others of an open one."""
    images = torch.randn(2, 3, 24, 40)

    def maps(**options):
        model = ILLaMA(
            ARCH, (24, 32), 8, out_indices=(0, 1, 2), num_queries=queries, **options
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        rates = [float(model.soft_mask(block)) for block in range(3)]
        return model.eval()(images), rates

    closed, _ = maps()
    open_, _ = maps(soft_mask_rate=1.0)
    found, rates = maps(soft_mask_rate=1.0, soft_mask_blocks=1)
    assert rates == [0, 0, 1]
    torch.testing.assert_close(found[:2], closed[:2])
    assert not torch.allclose(found[2], closed[2], atol=1e-3)
    assert not torch.allclose(found[2], open_[2], atol=1e-3)


@pytest.mark.parametrize(
    'options',
    [
        dict(soft_mask_blocks=0),
        dict(soft_mask_blocks=4),
        dict(soft_mask_blocks=True),
        dict(soft_mask_blocks=1, attn_mask='strict'),
    ],
    ids=str,
)
def test_blocks_that_a_mask_does_not_have_are_refused(options):
    with pytest.raises(UserError, match=r'soft_mask_blocks=.* expected 1 to 3 blocks'):
        ILLaMA(ARCH, out_indices=-1, **options)
