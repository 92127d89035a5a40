"""benchmarks/guards.py: that it runs and what it writes; no timings."""

import importlib.util
import json
import sys

import pytest
import torch
from tiny_run import ROOT, start_fresh


@pytest.mark.slow
def test_the_costs_of_guards_images_and_checkpoints_are_written(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    path = ROOT / 'benchmarks' / 'guards.py'
    spec = importlib.util.spec_from_file_location('guards_benchmark', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    start_fresh()
    threads = str(torch.get_num_threads())
    options = ['--quick', '--threads', threads, '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', ['guards.py', *options])
    module.main()
    (row,) = json.loads((tmp_path / 'guards.json').read_text())['rows']
    for name in ('guards', 'images', 'checkpoint'):
        assert len(row['pairs'][name]) == 2
        assert all(min(pair) > 0 for pair in row['pairs'][name])
    (a, b), (c, d) = row['pairs']['guards']
    expected = ((a - b) + (c - d)) / (b + d)
    assert row['guards'] == pytest.approx(expected)
    low, high = row['inside_range']
    assert 0 < low <= row['inside'] <= high < 1
    # Of one iteration, and more than the seeding of its three generators.
    assert 1e-5 < row['inside_seconds'] < row['step_seconds']
    assert row['checkpoint_MiB'] > 1 and row['interval'] == 312 * 4096 // 8
