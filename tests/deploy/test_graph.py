"""Graphs of ONNX equal the models, for one size and for any."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, strategies as st
from mmengine.registry import MODELS, init_default_scope

from illama_seg.apis import get_config
from illama_seg.deploy.graph import AveragePool, Exportable, to_onnx
from illama_seg.deploy.runtime import open_session

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

ARCH = dict(embed_dims=24, num_layers=2, num_heads=2)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9))
def test_pooling_by_matrices_is_adaptive_pooling(height, width, rows, columns):
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    found = AveragePool((rows, columns))(x)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, (rows, columns)))


def test_pooling_keeps_a_side_that_is_not_named():
    x = torch.randn(1, 2, 5, 7)
    found = AveragePool((None, 3))(x)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, (None, 3)))


def segmentor(head='EfficientUPerHead', **backbone):
    init_default_scope('mmseg')
    cfg = get_config('upernet_illama_tiny_ade20k').model
    arch = dict(embed_dims=24, num_layers=4, num_heads=2)
    kind = dict(type='ILLaMA', arch=arch, out_indices=(0, 1, 2, 3), img_size=64)
    cfg.backbone = kind | backbone
    cfg.neck.embed_dim = 24
    sizes = dict(in_channels=[24] * 4, in_index=[0, 1, 2, 3], channels=8, num_classes=5)
    if head == 'FCNHead':
        sizes = dict(in_channels=24, in_index=1, channels=8, num_classes=5)
    cfg.decode_head = dict(type=head, **sizes)
    cfg.auxiliary_head = None
    torch.manual_seed(0)
    return MODELS.build(cfg).eval()


def classifier(**backbone):
    torch.manual_seed(0)
    kind = dict(type='ILLaMA', arch=ARCH, out_type='cls_token', out_indices=(-1,))
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=kind | backbone,
            head=dict(type='LinearClsHead', num_classes=7, in_channels=24),
        )
    ).eval()


def differences(model, path, size, shapes):
    to_onnx(Exportable(model), path, 3, size)
    session = open_session(path)
    found = []
    for shape in shapes:
        image = torch.randn(shape)
        with torch.no_grad():
            if hasattr(model, 'decode_head'):
                expected = model.decode_head(model.extract_feat(image)).numpy()
            else:
                expected = model(image).numpy()
        logits = session(image.numpy())
        assert logits.shape == expected.shape
        found.append(np.abs(logits - expected).max() / np.abs(expected).max())
    return found


def test_a_graph_for_one_size_is_the_model(tmp_path):
    shapes = [(1, 3, 50, 83)]
    path = tmp_path / 'model.onnx'
    assert max(differences(segmentor(), path, (50, 83), shapes)) < 1e-5


@pytest.mark.slow
def test_a_graph_for_any_size_is_the_model(tmp_path):
    shapes = [
        (1, 3, 64, 64),
        (2, 3, 33, 100),
        (1, 3, 128, 37),
        (1, 3, 17, 17),
        (1, 3, 160, 512),
    ]
    path = tmp_path / 'model.onnx'
    assert max(differences(segmentor(), path, None, shapes)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize(
    'options',
    [
        dict(head='UPerHead'),
        dict(head='FCNHead'),
        dict(attn_mask='strict'),
        dict(attn_mask='bidirectional'),
        dict(soft_mask_rate=0.3),
        dict(attn_mask='modified', cls_position='first'),
        dict(ffn='mlp', norm='layer', with_rotary=False),
        dict(with_pos_embed=False),
        dict(rotary_grid='scaled'),
        dict(rotary_grid='neighbour', attn_mask='strict'),
        dict(rotary_grid='axial', attn_mask='bidirectional'),
    ],
    ids=str,
)
def test_every_mask_and_head_is_exported(options, dynamic, tmp_path):
    size = None if dynamic else (48, 80)
    shapes = [(1, 3, 48, 80), *[(1, 3, 100, 70)] * dynamic]
    found = differences(segmentor(**options), tmp_path / 'a.onnx', size, shapes)
    assert max(found) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('dynamic', [False, True])
def test_a_classifier_is_exported(dynamic, tmp_path):
    size = None if dynamic else (224, 224)
    shapes = [(1, 3, 224, 224), *[(3, 3, 96, 130)] * dynamic]
    assert max(differences(classifier(), tmp_path / 'a.onnx', size, shapes)) < 1e-5


@pytest.mark.slow
def test_torchs_own_exporter_needs_no_preparation(tmp_path):
    model, image = classifier(), torch.randn(1, 3, 224, 224)
    path = tmp_path / 'model.onnx'
    torch.onnx.export(model, (image,), str(path), dynamo=True, verbose=False)
    with torch.no_grad():
        expected = model(image).numpy()
    np.testing.assert_allclose(
        open_session(path)(image.numpy()), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('name', ['auto', 'fixed', 'blocked', 'flash'])
def test_an_exported_program_has_the_formula(name, monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_ATTENTION', name)
    model, image = classifier(), torch.randn(1, 3, 224, 224)
    graph = torch.export.export(model, (image,)).graph
    assert not any('illama_seg' in str(node.target) for node in graph.nodes)
