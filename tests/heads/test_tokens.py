"""Heads on the last patches: the equations, a training step in mmseg, the refusals."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from illama_seg.errors import UserError
from illama_seg.heads import ClassTokenHead, LinearHead
from illama_seg.studies.complexity.counts import count_multiply_accumulates

CLASSES, CHANNELS = 5, 12


def rms(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def options(**more):
    loss = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    return dict(num_classes=CLASSES, dropout_ratio=0.0, loss_decode=loss) | more


def with_large_weights(head):
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return head.double().eval()


def test_class_tokens_are_segmenters_masks():
    head = with_large_weights(ClassTokenHead(CHANNELS, 8, **options()))
    maps, tokens = (
        torch.randn(2, CHANNELS, 3, 4).double(),
        torch.randn(2, CLASSES, CHANNELS).double(),
    )
    expected = torch.zeros(2, CLASSES, 3, 4).double()
    for b in range(2):
        for y in range(3):
            for x in range(4):
                patch = head.patch_proj.weight @ rms(
                    maps[b, :, y, x], head.patch_norm.weight
                )
                products = torch.stack(
                    [
                        torch.dot(patch / patch.norm(), token / token.norm())
                        for token in rms(tokens[b], head.token_norm.weight)
                        @ head.token_proj.weight.T
                    ]
                )
                centred = products - products.mean()
                scaled = centred / (centred.square().mean() + 1e-5).sqrt()
                expected[b, :, y, x] = (
                    scaled * head.logit_norm.weight + head.logit_norm.bias
                )
    torch.testing.assert_close(head((maps, tokens)), expected)


def test_a_linear_head_is_a_norm_and_a_product():
    head = with_large_weights(LinearHead(CHANNELS, **options()))
    maps = torch.randn(2, CHANNELS, 3, 4).double()
    normed = rms(maps.permute(0, 2, 3, 1), head.norm.weight)
    weight = head.conv_seg.weight.flatten(1)
    expected = (normed @ weight.T + head.conv_seg.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(head((torch.zeros(1), maps)), expected)


def test_upscaling_makes_sixteen_logits_of_a_patch_and_reads_no_other():
    head = with_large_weights(ClassTokenHead(CHANNELS, 8, upscale=True, **options()))
    maps, tokens = (
        torch.randn(1, CHANNELS, 3, 4).double(),
        torch.randn(1, CLASSES, CHANNELS).double(),
    )
    logits = head((maps, tokens))
    assert logits.shape == (1, CLASSES, 12, 16)
    maps[:, :, 1, 2] += 1
    changed = (head((maps, tokens)) != logits).any(1)[0].nonzero()
    assert changed.min(0).values.tolist() == [4, 8] and changed.max(
        0
    ).values.tolist() == [7, 11]


def test_one_class_alone_is_a_slope():
    loss = dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)
    head = ClassTokenHead(
        CHANNELS,
        8,
        **options(num_classes=2, out_channels=1, threshold=0.3, loss_decode=loss),
    )
    head.init_weights()
    maps, tokens = torch.randn(2, CHANNELS, 3, 4), torch.randn(2, 1, CHANNELS)
    logits = head((maps, tokens))
    assert logits.shape == (2, 1, 3, 4) and 0.1 < logits.abs().max() <= 10


@pytest.mark.parametrize(
    'inputs',
    [
        (torch.ones(1, CHANNELS, 2, 2),) * 2,
        (torch.ones(1, CHANNELS, 2, 2), torch.ones(1, 3, CHANNELS)),
    ],
)
def test_tokens_of_another_number_are_refused(inputs):
    with pytest.raises(
        UserError, match=r'got [03] tokens: set model\.backbone\.num_queries=5'
    ):
        ClassTokenHead(CHANNELS, 8, **options())(inputs)


def segmentor(head, **backbone):
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 48)),
        backbone=dict(
            type='ILLaMA',
            arch=dict(embed_dims=24, num_layers=2, num_heads=2),
            img_size=(32, 48),
            patch_size=8,
            out_indices=(1,),
            **backbone,
        ),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config)
    model.init_weights()
    return model


@pytest.mark.parametrize('mask', ['strict', 'chunked', 'soft'])
@pytest.mark.parametrize('kind', ['ClassTokenHead', 'LinearHead'])
def test_a_step_moves_all_weights_that_are_read(kind, mask):
    is_tokens = kind == 'ClassTokenHead'
    extra = dict(channels=8) if is_tokens else {}
    queries = dict(num_queries=CLASSES) if is_tokens else {}
    model = segmentor(
        options(type=kind, in_channels=24, **extra), attn_mask=mask, **queries
    )
    label = torch.randint(0, CLASSES, (1, 32, 48))
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(32, 48))
    )
    losses = model.loss(torch.randn(1, 3, 32, 48), [sample])
    losses['decode.loss_ce'].backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    still = {n for n, p in model.named_parameters() if not p.grad.any()}
    # Nothing reads the class token of a strict or chunked mask but the queries.
    assert still <= (
        {'backbone.cls_token'} if not is_tokens and mask != 'soft' else set()
    )
    logits = model(torch.randn(1, 3, 30, 50))
    assert F.interpolate(logits, (30, 50)).shape == (1, CLASSES, 30, 50)


@pytest.mark.parametrize('mask', ['strict', 'soft'])
def test_products_of_queries_are_counted(mask):
    head = options(type='ClassTokenHead', in_channels=24, channels=8)
    model = segmentor(head, attn_mask=mask, num_queries=CLASSES).to('meta')
    n, blocks, hidden = 24, 2, model.backbone.blocks[0].mlp.fc1.out_features
    each = 4 * 24**2 + 3 * 24 * hidden  # attention and SwiGLU, for a token and a block
    patches = n + (mask == 'soft')  # whose class token the denominators read
    linear = n * 3 * 8**2 * 24 + blocks * (patches + CLASSES) * each
    linear += (n + CLASSES) * 24 * 8 + n * CLASSES * 8
    products = blocks * 2 * 24 * (patches**2 + CLASSES * (n + 1))
    counts = count_multiply_accumulates(model, (32, 48))
    assert counts.attention == products
    assert counts.linear == linear


def test_a_linear_head_on_tokens_names_the_settings():
    head = LinearHead(8, num_classes=3)
    with pytest.raises(UserError, match=r'in_index=-1 are the tokens .*num_queries=0'):
        head([torch.randn(1, 8, 2, 2), torch.randn(1, 3, 8)])
