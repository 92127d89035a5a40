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
    rows = re.findall(r'^\| (\w+) \| ([\d.]+) \| ([-+][\d.]+) \|$', text, re.M)
    summary = json.loads(RECORD.read_text())['summary']
    scores = {way: summary[way]['mIoU']['last'] for way in WAYS}
    assert all(len(seeds) == 1 for seeds in scores.values())  # the page says so
    full = scores['full'][0]
    expected = [
        (way, f'{score:.1f}', f'{score - full:+.1f}')
        for way, (score,) in scores.items()
    ]
    assert rows == expected
