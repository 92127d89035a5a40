import math

import pytest
import torch

from illama_seg.layers import (
    MASKS,
    NORM_EPS,
    Block,
    DropPath,
    SelfAttention,
    rotary_table as table_of,
)

DIMS, HEADS, TOKENS = 24, 3, 7


def norm(x, weight):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def attend(attn, x, mask, rate):
    """Eq. 1 and Eq. 2 of arXiv 2404.06773, a token at a time."""
    batch, num_tokens, dims = x.shape
    head_dim = dims // HEADS
    qkv = x @ attn.qkv.weight.T + attn.qkv.bias
    out = torch.zeros_like(x)
    frequencies = 10000 ** (-torch.arange(0, head_dim, 2).double() / head_dim)

    def turned(vectors):
        angles = torch.arange(num_tokens).double()[:, None] * frequencies
        pairs = torch.complex(vectors[..., ::2], vectors[..., 1::2])
        return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2)

    for b in range(batch):
        for h in range(HEADS):
            q, k, v = (
                qkv[b, :, part * dims + h * head_dim :][:, :head_dim]
                for part in range(3)
            )
            q, k = turned(q), turned(k)
            for i in range(num_tokens):
                weights = torch.exp(k @ q[i] / math.sqrt(head_dim))
                if mask == 'soft':
                    weights = weights / weights.sum()
                    weights[i + 1 :] *= rate
                else:
                    weights[i + 1 :] = 0
                    weights = weights / weights.sum()
                out[b, i, h * head_dim : (h + 1) * head_dim] = weights @ v
    return out @ attn.proj.weight.T + attn.proj.bias


@pytest.mark.parametrize(
    ('mask', 'rate'), [('soft', 0.0), ('soft', 0.3), ('soft', 1.0), ('strict', 0.0)]
)
def test_block_is_attention_then_swiglu_with_residuals(mask, rate):
    block = Block(DIMS, HEADS, mask, drop_path_rate=0.0).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, TOKENS, DIMS, dtype=torch.float64)
    actual, _ = block(x, table_of(TOKENS, DIMS // HEADS).double(), rate)

    y = x + attend(block.attn, norm(x, block.norm1.weight), mask, rate)
    z = norm(y, block.norm2.weight)
    gate = z @ block.mlp.fc1.weight.T
    gated = gate * torch.sigmoid(gate) * (z @ block.mlp.fc3.weight.T)
    expected = y + gated @ block.mlp.fc2.weight.T
    # The angles of the table are float32.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mask', MASKS)
def test_maps_are_what_the_attention_multiplies_the_values_by(mask):
    attn = SelfAttention(DIMS, HEADS, mask)
    x, rotary = torch.randn(2, TOKENS, DIMS), table_of(TOKENS, DIMS // HEADS)
    rate = 0.3 if mask == 'soft' else 0.0
    given = torch.rand(TOKENS, TOKENS) > 0.5
    given |= torch.eye(TOKENS, dtype=torch.bool)
    options = dict(seen=given) if mask == 'chunked' else {}
    softmax, masked = attn.maps(x, rotary, rate, **options)
    values = attn.qkv(x)[..., 2 * DIMS :].unflatten(-1, (HEADS, -1)).transpose(1, 2)
    mixed = attn.proj((masked @ values).transpose(1, 2).flatten(2))
    expected, _ = attn(x, rotary, rate, **options)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(softmax.sum(-1), torch.ones(2, HEADS, TOKENS))
    past = torch.ones(TOKENS, TOKENS).tril()
    if mask == 'soft':
        expected = softmax * (past + 0.3 * (1 - past))
    elif mask == 'bidirectional':
        expected = softmax
    else:  # renormalised
        seen = past.clone()
        seen[0] = 1 if mask == 'modified' else past[0]
        seen = given.float() if mask == 'chunked' else seen
        expected = softmax * seen / (softmax * seen).sum(-1, keepdim=True)
    torch.testing.assert_close(masked, expected, rtol=1e-4, atol=1e-6)


def test_qkv_and_proj_have_biases():
    names = set(dict(SelfAttention(DIMS, HEADS, 'soft').named_parameters()))
    assert names == {'qkv.weight', 'qkv.bias', 'proj.weight', 'proj.bias'}


@pytest.mark.parametrize('scale', [1e-4, 1e-3, 1.0])
def test_norms_add_one_millionth_to_the_mean_square(scale):
    block = Block(DIMS, HEADS, 'soft', 0.0)
    x = scale * torch.randn(2, TOKENS, DIMS)
    for layer in (block.norm1, block.norm2):
        expected = norm(x.double(), layer.weight.double()).float()
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert NORM_EPS == 1e-6


def test_norms_have_no_bias():
    block = Block(DIMS, HEADS, 'soft', 0.0)
    assert [name for name, _ in block.norm1.named_parameters()] == ['weight']


def test_drop_path_drops_whole_samples():
    x = torch.rand(64, 5, 3) + 1
    dropped = DropPath(0.25).train()(x)
    kept = dropped.flatten(1).ne(0)
    assert torch.equal(kept.any(1), kept.all(1))
    assert 0 < kept.any(1).sum() < 64


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
def test_drop_path_keeps_the_mean(rate):
    x = torch.ones(200_000, 1)
    dropped = DropPath(rate).train()(x)
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    assert dropped.eq(0).float().mean().item() == pytest.approx(rate, abs=0.01)
    assert dropped.max().item() == pytest.approx(1 / (1 - rate))


def test_drop_path_is_off_in_evaluation_and_at_rate_zero():
    x = torch.randn(8, 4)
    assert torch.equal(DropPath(0.9).eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)


def test_drop_path_works_on_both_branches_on_their_own():
    block = Block(DIMS, HEADS, 'soft', drop_path_rate=0.5).train()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, TOKENS, DIMS).expand(64, -1, -1)
    outputs, _ = block(x, table_of(TOKENS, DIMS // HEADS), 0.0)
    # Both, the first, the second or none of the branches: four results.
    assert len({tuple(out.flatten().mul(1e3).round().tolist()) for out in outputs}) == 4
    assert outputs.eq(x).flatten(1).all(1).any()


def test_drop_path_keeps_the_dtype():
    x = torch.randn(8, 4, dtype=torch.bfloat16)
    assert DropPath(0.5).train()(x).dtype == torch.bfloat16
