"""benchmarks/segmentor.py: what it runs and writes, on small images; no timings."""

import json
import sys

import numpy as np
import pytest
import torch
from mmseg.apis import inference_model
from mmseg.models.backbones import VisionTransformer
from mmseg.models.decode_heads import UPerHead
from tiny_run import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import segmentor as benchmark


@pytest.fixture(scope='module')
def record(tmp_path_factory):
    out = tmp_path_factory.mktemp('out')
    command = ['segmentor.py', '--archs', 'tiny', '--dtypes', 'float32']
    command += ['--repeats', '1', '--out', str(out)]
    threads = str(torch.get_num_threads())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, 'SIZES', {'64x64': (64, 64), '64x96': (64, 96)})
        patch.setattr(sys, 'argv', [*command, '--threads', threads, '--sizes', '64x64'])
        patch.setattr(benchmark, 'peak_in_new_process', lambda *case: 7.0)
        benchmark.main()
    assert (out / 'segmentor.png').stat().st_size > 10_000
    return json.loads((out / 'segmentor.json').read_text())


@pytest.mark.slow
def test_every_model_is_timed_in_both_passes(record):
    found = [(row['pass'], row['name']) for row in record['rows']]
    assert found == [(p, name) for p in benchmark.PASSES for name in benchmark.NAMES]
    for row in record['rows']:
        assert 0 < row['min'] <= row['seconds'] <= row['max'] and row['MiB'] == 7
        assert row['over_vit'] == 1 or row['name'] != 'vit'


@pytest.mark.slow
def test_ours_runs_fewer_products_than_the_vit_of_its_size(record):
    counts = {
        row['name']: row['multiply_accumulates']
        for row in record['rows']
        if row['pass'] == 'inference'
    }
    assert counts['illama'] < 0.7 * counts['vit']
    assert counts['linear'] < counts['illama']


def test_the_competitors_are_mmsegs_own():
    vit = benchmark.build('vit', 'tiny')
    assert type(vit.backbone) is VisionTransformer
    assert type(vit.decode_head) is UPerHead
    ours = benchmark.build('illama', 'tiny')
    sizes = [
        sum(p.numel() for p in model.backbone.parameters()) for model in (ours, vit)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.slow
def test_a_training_iteration_moves_all_weights():
    model = benchmark.build('illama', 'tiny').train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    benchmark.train(model, optimiser, image, 'float32')
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert not still


def test_labels_are_those_that_mmseg_gives_of_the_same_weights(monkeypatch):
    monkeypatch.setattr(benchmark, 'SIZES', {'64x96': (64, 96)})
    case = 'illama', 'tiny', '64x96', 'float32', 'inference'
    torch.manual_seed(0)
    _, call = benchmark.call_of(*case)
    torch.manual_seed(0)
    model = benchmark.build('illama', 'tiny').eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    expected = inference_model(model, image).pred_sem_seg.data[0].numpy()
    labels = call()
    assert labels.shape == (64, 96) and (labels != expected).mean() < 1e-2
