import numpy as np
import pytest
import timm
import torch
from hypothesis import given, strategies as st
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.studies.attention_rank.rank import (
    AttentionRank,
    cumulative_singular_values,
    rank_index,
    watch_attention,
)

ARCH = dict(embed_dims=16, num_layers=2, num_heads=2)


def backbone(**options):
    """Weights large enough that the softmax is not flat."""
    model = ILLaMA(ARCH, 8, 2, out_indices=-1, **options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model.eval()


def watched(model, images):
    """(layer, kind) -> maps."""
    seen = {}
    with torch.no_grad(), watch_attention(model, lambda *x: seen.update({x[:2]: x[2]})):
        model(images)
    return seen


# Curves


@given(st.integers(1, 40))
def test_equal_values_reach_the_share_after_that_share_of_them(n):
    curve = cumulative_singular_values(torch.eye(n)[None])
    expected = torch.arange(1, n + 1).double()[None] / n
    torch.testing.assert_close(curve, expected)
    assert rank_index(curve, 0.8).tolist() == [-(-4 * n // 5)]


def test_a_map_whose_rows_are_equal_has_rank_one():
    maps = torch.rand(3, 1, 9).softmax(-1).expand(3, 9, 9)
    assert rank_index(cumulative_singular_values(maps), 0.999).tolist() == [1, 1, 1]


def test_a_curve_by_hand():
    curve = cumulative_singular_values(torch.diag(torch.tensor([1.0, 5.0, 3.0, 1.0])))
    torch.testing.assert_close(curve, torch.tensor([0.5, 0.8, 0.9, 1.0]).double())
    assert [int(rank_index(curve, share)) for share in (0.4, 0.8, 0.81)] == [1, 2, 3]


def test_maps_add_up_to_their_mean_curve_and_the_mean_index():
    rank = AttentionRank()
    flat, full = torch.full((1, 1, 10, 10), 0.1), torch.eye(10).expand(1, 1, 10, 10)
    rank.update(3, 'softmax', torch.cat([flat, full]))
    rank.update(3, 'softmax', full)
    (row,) = rank.summary()
    assert (row['layer'], row['kind'], row['head']) == (3, 'softmax', 1)
    # (1 + 8 + 8) / 3, and the mean of the curves 1 and n / 10.
    assert row['mean'] == pytest.approx(17 / 3, abs=1e-3)
    assert row['std'] == pytest.approx(np.std([1, 8, 8]), abs=1e-3)
    expected = [(1 + 2 * n / 10) / 3 for n in range(1, 11)]
    assert row['curve'] == pytest.approx(expected, abs=1e-5)
    assert row['index'] == 7 and row['tokens'] == 10


# Models


@pytest.mark.parametrize('mask', ['soft', 'strict'])
def test_the_maps_of_a_backbone_are_those_of_the_formula(mask):
    """Layer 1 by Eq. 1 and 2 in float64, its rank by NumPy."""
    model, images = backbone(attn_mask=mask, with_rotary=False), torch.randn(2, 3, 8, 8)
    seen = watched(model, images)
    assert set(seen) == {(i, k) for i in (1, 2) for k in ('softmax', 'masked')}
    block = model.blocks[0]
    with torch.no_grad():
        patches, _ = model.patch_embed(images)
        x = torch.cat([patches, model.cls_token.expand(2, -1, -1)], 1)
        qkv = block.attn.qkv(block.norm1(x + model.pos_embed)).double()
    q, k, _ = qkv.unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / 8**0.5
    past = torch.ones(17, 17, dtype=torch.bool).tril()
    masked = scores.softmax(-1) * past
    if mask == 'strict':
        masked = scores.masked_fill(~past, -torch.inf).softmax(-1)
    rank = AttentionRank()
    for kind, expected in (('softmax', scores.softmax(-1)), ('masked', masked)):
        found = seen[1, kind]
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
        rank.update(1, kind, found)
        values = np.linalg.svd(expected.numpy(), compute_uv=False)
        curves = values.cumsum(-1) / values.sum(-1, keepdims=True)
        rows = [row for row in rank.summary() if row['kind'] == kind]
        assert [row['curve'] for row in rows] == [
            pytest.approx(curve, abs=2e-5) for curve in curves.mean(0)
        ]
        index = (curves.mean(0) < 0.8).sum(-1) + 1
        assert [row['index'] for row in rows] == index.tolist()


def test_a_bidirectional_backbone_has_no_masked_maps():
    seen = watched(backbone(attn_mask='bidirectional'), torch.randn(1, 3, 8, 8))
    assert list(seen) == [(1, 'softmax'), (2, 'softmax')]
    torch.testing.assert_close(seen[2, 'softmax'].sum(-1), torch.ones(1, 2, 17))


def test_the_maps_of_timms_vit_are_its_own_and_it_is_left_as_it_was():
    options = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
    model = timm.create_model('vit_tiny_patch16_224', **options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = model(images)
        x = model.blocks[0].norm1(model._pos_embed(model.patch_embed(images)))
        qkv = model.blocks[0].attn.qkv(x).unflatten(-1, (3, 3, 8))
    fused = [block.attn.fused_attn for block in model.blocks]
    seen = watched(model, images)
    assert list(seen) == [(1, 'softmax'), (2, 'softmax')]
    q, k, _ = qkv.permute(2, 0, 3, 1, 4)
    expected = (q @ k.mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(seen[1, 'softmax'], expected, rtol=1e-4, atol=1e-6)
    assert [block.attn.fused_attn for block in model.blocks] == fused
    torch.testing.assert_close(model(images), before)


def test_watching_ends():
    model, seen = backbone(), []
    with (
        pytest.raises(RuntimeError, match='stop'),
        watch_attention(model, lambda *x: seen.append(x)),
    ):
        raise RuntimeError('stop')
    model(torch.randn(1, 3, 8, 8))
    assert not seen


# Mistakes


def test_maps_that_are_not_finite_or_of_another_size_are_refused():
    rank = AttentionRank()
    with pytest.raises(ValueError, match='weights have diverged'):
        rank.update(1, 'softmax', torch.full((1, 1, 2, 2), torch.nan))
    rank.update(1, 'softmax', torch.eye(3)[None, None])
    with pytest.raises(ValueError, match=r'layer 1: maps of .* images of one size'):
        rank.update(1, 'softmax', torch.eye(4)[None, None])


def test_a_model_without_attention_is_refused():
    with (
        pytest.raises(ValueError, match='Sequential has no attention maps'),
        watch_attention(nn.Sequential(nn.Linear(2, 2)), print),
    ):
        pass
