import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.layers import swiglu_hidden_dims
from illama_seg.studies.complexity.counts import (
    MultiplyAccumulates,
    SelfAttentionCounts,
    closed_forms,
    count_multiply_accumulates,
    count_self_attention,
)

DIMS, CLASSES, PATCH = 8, 5, 4
ARCH = dict(embed_dims=DIMS, num_layers=2, num_heads=2)
sides = st.integers(1, 6).map(lambda patches: patches * PATCH)


def classifier(mask='soft'):
    config = dict(
        type='ImageClassifier',
        backbone=dict(
            type='ILLaMA',
            arch=ARCH,
            img_size=8,
            patch_size=PATCH,
            out_indices=(1,),
            out_type='cls_token',
            attn_mask=mask,
        ),
        head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=DIMS),
    )
    with torch.device('meta'):
        return MODELS.build(config)


def segmentor(num_auxiliary):
    norm = dict(type='BN')
    head = dict(
        type='FCNHead',
        in_channels=DIMS,
        in_index=0,
        channels=6,
        kernel_size=1,
        num_convs=1,
        concat_input=False,
        num_classes=CLASSES,
        norm_cfg=norm,
    )
    config = dict(
        type='EncoderDecoder',
        backbone=dict(
            type='ILLaMA', arch=ARCH, img_size=8, patch_size=PATCH, out_indices=(0, 1)
        ),
        decode_head=dict(head, in_index=1),
        auxiliary_head=[head] * num_auxiliary or None,
    )
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(config)


def blocks_by_hand(num_patches):
    """Products with weights, and of the attention, of two blocks and the patches."""
    tokens = num_patches + 1
    weights = 4 * DIMS**2 + 3 * DIMS * swiglu_hidden_dims(DIMS)
    patches = num_patches * DIMS * 3 * PATCH**2
    return patches + 2 * tokens * weights, 2 * 2 * tokens**2 * DIMS


@given(sides, sides)
def test_a_classifier_counts_as_by_hand(height, width):
    found = count_multiply_accumulates(classifier(), (height, width))
    linear, attention = blocks_by_hand(height * width // PATCH**2)
    linear += DIMS * CLASSES
    assert found == MultiplyAccumulates(linear, linear, attention, 0)


@pytest.mark.parametrize('num_auxiliary', [0, 1, 2])
def test_a_segmentors_auxiliary_heads_are_counted_apart(num_auxiliary):
    found = count_multiply_accumulates(segmentor(num_auxiliary), (12, 8))
    linear, attention = blocks_by_hand(6)
    head = 6 * (DIMS * 6 + 6 * CLASSES)
    linear += head
    assert found == MultiplyAccumulates(linear, linear, attention, num_auxiliary * head)


@pytest.mark.parametrize('mask', ['strict', 'bidirectional'])
def test_every_mask_counts_the_same(mask):
    shape = (16, 12)
    expected = count_multiply_accumulates(classifier(), shape)
    assert count_multiply_accumulates(classifier(mask), shape) == expected


def test_totals_are_with_and_without_attention_and_auxiliary_heads():
    macs = MultiplyAccumulates(linear=1, executed=2, attention=10, auxiliary=100)
    pairs = [(a, b) for a in (False, True) for b in (False, True)]
    assert [macs.total(*pair) for pair in pairs] == [1, 101, 11, 111]
    assert [macs.total(*pair, executed=True) for pair in pairs] == [2, 102, 12, 112]


def test_a_backbone_of_timm_counts_as_by_hand():
    config = dict(
        type='EncoderDecoder',
        backbone=dict(
            type='TimmFeatures', model_name='deit_tiny_patch16_224', out_indices=(1,)
        ),
        decode_head=dict(
            type='FCNHead',
            in_channels=192,
            in_index=0,
            channels=6,
            kernel_size=1,
            num_convs=1,
            concat_input=False,
            num_classes=CLASSES,
            norm_cfg=dict(type='BN'),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        model = MODELS.build(config)
    found = count_multiply_accumulates(model, (32, 48))
    patches, tokens = 6, 7
    linear = patches * 192 * 3 * 16**2 + 2 * tokens * 12 * 192**2
    linear += patches * (192 * 6 + 6 * CLASSES)
    assert found == MultiplyAccumulates(linear, linear, 2 * 2 * tokens**2 * 192, 0)


def test_the_model_is_left_as_it_was():
    model = classifier().train()
    for _ in range(2):
        first = count_multiply_accumulates(model, (8, 8))
    assert first == count_multiply_accumulates(classifier(), (8, 8))
    assert model.training and all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_bare_backbone_is_refused():
    with torch.device('meta'):
        backbone = ILLaMA(arch=ARCH, out_indices=(1,))
    with pytest.raises(ValueError, match=r'ILLaMA: expected a segmentor'):
        count_multiply_accumulates(backbone, (8, 8))
    with pytest.raises(ValueError, match='Linear'):
        count_multiply_accumulates(nn.Linear(2, 2), (8, 8))


# One self-attention


@given(st.integers(1, 40), st.integers(1, 6), st.sampled_from([1, 2, 3]))
def test_a_self_attention_counts_as_by_hand_whatever_its_heads(n, width, num_heads):
    dims = 6 * width
    found = count_self_attention(n, dims, num_heads)
    past = n * (n + 1) // 2
    assert found == SelfAttentionCounts(
        linear=4 * n * dims**2,
        bidirectional=2 * n**2 * dims,
        causal=(n**2 + past) * dims,
        strict=2 * past * dims,
        executed=2 * n**2 * dims,  # one block of rows
    )


@pytest.mark.parametrize(('n', 'dims'), [(5, 3), (197, 192), (4, 2)])
def test_table_2_by_hand(n, dims):
    bidirectional, causal = closed_forms(n, dims)
    assert bidirectional == 4 * n * dims * dims + 2 * n * n * dims
    rest = {5: 13, 197: 19405, 4: 9}[n]  # floor(N^2 / 2) + 1
    assert causal == 4 * n * dims * dims + n * n * dims + rest * dims


@given(st.integers(2, 60), st.integers(1, 8))
def test_table_2_and_the_count_differ_by_half_the_diagonal(n, dims):
    bidirectional, causal = closed_forms(n, dims)
    found = count_self_attention(n, dims)
    assert found.linear + found.bidirectional == bidirectional
    # Half of the diagonal, less the one weight that the paper adds.
    assert found.linear + found.causal - causal == (-(-n // 2) - 1) * dims


def test_a_longer_sequence_is_computed_by_three_quarters():
    n, dims = 1025, 16
    found = count_self_attention(n, dims)
    # Blocks of 256 rows with all their scores, and the values up to their last row.
    blocks = [(256, 256), (256, 512), (256, 768), (256, 1024), (1, 1025)]
    assert found.executed == (n**2 + sum(rows * seen for rows, seen in blocks)) * dims
    assert 0.75 < found.executed / found.bidirectional < 0.85
