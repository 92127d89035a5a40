"""VisionLLaMA by the equations of arXiv 2403.00522, written again with loops."""

import cmath
import math
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from illama_seg.apis import load_config

CONFIG = Path(__file__).parents[2] / 'configs/pretrain/visionllama_micro_cifar10.py'
DIMS, HEADS, PATCH = 24, 3, 4
TRAINED = 5  # patches on a side of the images of the training


def classifier():
    cfg = load_config(CONFIG)
    cfg.model.backbone.arch = dict(embed_dims=DIMS, num_layers=2, num_heads=HEADS)
    cfg.model.backbone.update(img_size=TRAINED * PATCH, patch_size=PATCH)
    cfg.model.head.in_channels = DIMS
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def layer_norm(x, weights, key):
    x = x - x.mean(-1, keepdim=True)
    x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return x * weights[f'{key}.weight'] + weights[f'{key}.bias']


def turned(vector, row, column, rows, columns):
    """Rotate the pairs of a head as complex numbers: half by the row, half by column.

    AS2DRoPE: a place on a grid of other size is scaled to the one of the training.
    """
    d, out = len(vector), []
    for pair in range(d // 2):
        place = row * TRAINED / rows if pair < d // 4 else column * TRAINED / columns
        angle = place * 10000 ** (-4 * (pair % (d // 4)) / d)
        number = complex(vector[2 * pair], vector[2 * pair + 1])
        number *= cmath.exp(1j * angle)
        out += [number.real, number.imag]
    return torch.tensor(out, dtype=torch.float64)


def attention(x, weights, key, grid):
    """Attend from each token, the class token first and not turned, to every token."""
    qkv = x @ weights[f'{key}.qkv.weight'].T + weights[f'{key}.qkv.bias']
    d, heads = DIMS // HEADS, []
    for head in range(HEADS):
        q, k, v = (
            qkv[:, part * DIMS + head * d : part * DIMS + (head + 1) * d]
            for part in range(3)
        )
        for tokens in (q, k):
            for n in range(1, len(x)):
                row, column = divmod(n - 1, grid[1])
                tokens[n] = turned(tokens[n].clone(), row, column, *grid)
        scores = (q @ k.T / math.sqrt(d)).exp()
        heads.append(scores / scores.sum(1, keepdim=True) @ v)
    out = torch.cat(heads, 1)
    return out @ weights[f'{key}.proj.weight'].T + weights[f'{key}.proj.bias']


def swiglu(x, weights, key):
    gate, up = (x @ weights[f'{key}.{name}.weight'].T for name in ('fc1', 'fc3'))
    return gate / (1 + (-gate).exp()) * up @ weights[f'{key}.fc2.weight'].T


def logits_of(weights, image):
    """(3, H, W) -> (num_classes,), in float64."""
    weights = {key: value.double() for key, value in weights.items()}
    rows, columns = (side // PATCH for side in image.shape[1:])
    kernel = weights['backbone.patch_embed.proj.weight'].flatten(1)
    tokens = [weights['backbone.cls_token'].flatten()]
    for n in range(rows * columns):
        r, c = divmod(n, columns)
        patch = image[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]
        bias = weights['backbone.patch_embed.proj.bias']
        tokens.append(kernel @ patch.flatten().double() + bias)
    x = torch.stack(tokens)
    for index in range(2):
        key = f'backbone.blocks.{index}'
        x = x + attention(
            layer_norm(x, weights, f'{key}.norm1'),
            weights,
            f'{key}.attn',
            (rows, columns),
        )
        x = x + swiglu(layer_norm(x, weights, f'{key}.norm2'), weights, f'{key}.mlp')
    token = layer_norm(x, weights, 'backbone.norm')[0]
    return weights['head.fc.weight'] @ token + weights['head.fc.bias']


@pytest.mark.parametrize('grid', [(5, 5), (3, 7), (6, 4)])
def test_logits_are_those_of_the_equations_at_any_size(grid):
    model = classifier()
    images = torch.randn(2, 3, grid[0] * PATCH, grid[1] * PATCH)
    with torch.no_grad():
        found = model.head(model.backbone(images))
    expected = torch.stack([logits_of(model.state_dict(), image) for image in images])
    assert expected.std() > 0.1
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_hidden_channels_are_the_published_ones():
    """Two thirds of four times the width, rounded up to a multiple of 256."""
    for size, width in dict(tiny=512, base=2048).items():
        name = f'upernet_visionllama_{size}_ade20k.py'
        cfg = load_config(CONFIG.parents[1] / 'peers' / name)
        with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
            backbone = MODELS.build(cfg.model.backbone)
        assert backbone.blocks[0].mlp.fc1.out_features == width
        assert backbone.pos_embed is None and backbone.train_grid == (14, 14)
