"""docs/little_data.md says what can be counted, and what docs/little_data.json has."""

import json
import re

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from pages import ROOT, section

from illama_seg.apis import get_config
from illama_seg.backbones import ILLaMA

PAGE = (ROOT / 'docs' / 'little_data.md').read_text()
RECORD = ROOT / 'docs' / 'little_data.json'
WAYS = ('full', 'frozen', 'layer_decay', 'lora')


def counts(module):
    """Trained parameters, and all."""
    parameters = list(module.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return trained, sum(p.numel() for p in parameters)


@pytest.mark.parametrize('way', WAYS)
def test_trained_parameters_are_counted(way):
    cfg = get_config(f'upernet_illama_micro_camvid40_{way}')
    cfg.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        model = MODELS.build(cfg.model)
    (trained, total), (part, backbone) = counts(model), counts(model.backbone)
    rank = ' (rank 2)' if way == 'lora' else ''
    assert (
        f'| `upernet_illama_micro_camvid40_{way}`{rank} | {part:,} of {backbone:,}, '
        f'{part / backbone:.1%} | {trained:,} of {total:,} |' in PAGE
    )


def test_shares_of_tiny_and_base_are_counted():
    shares = []
    for arch, rank in (('tiny', 4), ('base', 8)):
        with torch.device('meta'):
            lora = dict(r=rank, lora_alpha=2 * rank)
            trained, total = counts(ILLaMA(arch, 512, lora=lora))
        shares.append(f'{100 * trained / total:.1f}')
    assert f'trains {" and ".join(shares)} %' in ' '.join(PAGE.split())


def test_the_table_is_that_of_the_record():
    text = section(PAGE, 'Measured: 40 frames of CamVid')
    rows = re.findall(r'^\| (\w+) ((?:\| [^|]+){4})\| ?(.*?) ?\|$', text, re.M)
    found = {way: f'{scores}| {minus}' for way, scores, minus in rows if way in WAYS}
    summary = json.loads(RECORD.read_text())['summary']
    scores = {
        way: torch.tensor(summary[way]['mIoU']['last'], dtype=torch.float64)
        for way in WAYS
    }
    assert list(found) == list(WAYS) and all(len(x) == 3 for x in scores.values())
    for way, x in scores.items():
        seeds = ' '.join(f'| {score:.1f}' for score in x.tolist())
        minus = x - scores['full']
        difference = f'{minus.mean():+.1f} ± {minus.std():.1f}' if way != 'full' else ''
        assert found[way] == f'{seeds} | {x.mean():.1f} ± {x.std():.1f} | {difference}'
    minus = scores['layer_decay'] - scores['full']
    assert minus.min() > 0
    half = 4.303 * minus.std() / 3**0.5  # Student's t, 97.5 %, two degrees of freedom
    low, high = minus.mean() - half, minus.mean() + half
    assert f'{low:.1f} to {high:.1f}' in text
