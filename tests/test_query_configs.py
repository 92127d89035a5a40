"""The configs of configs/queries: what they build, count and train."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from PIL import Image
from tiny_run import run_tool

from illama_seg.apis import load_config
from illama_seg.heads import ClassTokenHead
from illama_seg.studies.complexity.counts import count_multiply_accumulates

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs' / 'queries'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
QUESTIONS = [name for name in NAMES if 'frozen' in name or 'categories' in name]
QUESTIONS.append('illama_micro_road_camvid')
NO_WEIGHTS = {'model.backbone.init_cfg': None}


def build(name, device='meta'):
    config = load_config(CONFIGS / f'{name}.py', NO_WEIGHTS)
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device(device):
        return config, MODELS.build(config.model)


@pytest.mark.parametrize('name', NAMES)
def test_every_config_builds_a_causal_model_with_a_query_for_each_class(name):
    config, model = build(name)
    # All rows of a chunk are the config's of 'any latency' alone.
    backbone, any_latency = model.backbone, name == 'illama_micro_chunked_camvid'
    is_causal = backbone.attn_mask == 'strict' or backbone.chunk_rows == 1
    assert is_causal != any_latency
    if isinstance(model.decode_head, ClassTokenHead):
        queries = len(backbone.query_offsets)
        assert queries == model.decode_head.out_channels
    groups = config.train_dataloader.dataset.get('groups')
    if groups:
        assert len(groups) == model.decode_head.num_classes
        assert config.val_dataloader.dataset.groups == groups


@pytest.mark.parametrize('name', QUESTIONS)
def test_a_question_trains_under_one_percent(name):
    _, model = build(name)
    sizes = {key: p.numel() for key, p in model.named_parameters() if p.requires_grad}
    assert {key.split('.')[0] for key in sizes} == {'backbone', 'decode_head'}
    assert [k for k in sizes if k.startswith('backbone')] == ['backbone.query_offsets']
    assert sum(sizes.values()) < 0.01 * sum(p.numel() for p in model.parameters())


def test_base_with_150_queries_counts_under_130_g_at_512():
    _, model = build('illama_base_queries_ade20k')
    counts = count_multiply_accumulates(model, (512, 512))
    total = counts.total(attention=True, auxiliary=True, executed=True)
    assert 90e9 < total < 130e9


def camvid(root):
    """Two frames of each split in CamVid's layout, labels 0 to 11."""
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for folder, shape, most in (
            ('', (360, 480, 3), 256),
            ('annot', (360, 480), 12),
        ):
            (root / f'{split}{folder}').mkdir(parents=True)
            for name in 'ab':
                pixels = generator.integers(0, most, shape, np.uint8)
                Image.fromarray(pixels).save(root / f'{split}{folder}' / f'{name}.png')
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in NAMES if 'camvid' in name])
def test_every_camvid_config_trains_an_iteration(name, tmp_path):
    root = camvid(tmp_path / 'data')
    loaders = ('train', 'val', 'test')
    options = [f'{split}_dataloader.dataset.data_root={root}' for split in loaders]
    options += [f'{split}_dataloader.num_workers=0' for split in loaders]
    options += [f'{split}_dataloader.persistent_workers=False' for split in loaders]
    if 'camvid40' in name:
        options.append('train_dataloader.dataset.indices=None')
    run_tool(
        'train', CONFIGS / f'{name}.py', '--work-dir', tmp_path / 'run',
        '--cfg-options', 'model.backbone.init_cfg=None', 'train_cfg.max_iters=1',
        'train_dataloader.batch_size=2', 'param_scheduler=[]', *options,
    )  # fmt: skip
    assert (tmp_path / 'run' / 'iter_1.pth').is_file()
