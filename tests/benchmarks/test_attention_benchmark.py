"""benchmarks/attention.py: what 'auto' takes, and which precisions are timed."""

import json
import sys

import pytest
from tiny_run import ROOT

from illama_seg.machine import precision

sys.path.insert(0, str(ROOT / 'benchmarks'))
import attention as benchmark
import common


def test_auto_is_named_with_its_time_over_the_fastest(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, 'BATCHES', {17: (1, 1)})
    monkeypatch.setattr(benchmark, 'peak_in_new_process', lambda *case: 1.0)
    arguments = ['attention.py', '--quick', '--threads', '1', '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', arguments)
    monkeypatch.setenv(precision.VARIABLE, 'float32')
    benchmark.main()
    record = json.loads((tmp_path / 'attention.json').read_text())
    found = [row['auto'] for row in record['rows'] if 'auto' in row]
    assert len(found) == 2  # inference and training
    assert all(auto['name'] == 'blocked' and auto['ratio'] >= 1 for auto in found)
    assert capsys.readouterr().out.count('auto: blocked, ') == 2


def test_the_ratio_is_over_the_fastest_that_auto_could_take(monkeypatch):
    times = dict(sdpa=[1.0], strict=[1.0], blocked=[3.0], flash=[2.0])
    found = benchmark.automatic_choice('cpu', 'float32', 17, 1, 'training', times)
    assert found == dict(name='blocked', ratio=1.5)


@pytest.mark.parametrize(
    ('seconds', 'names'),
    [
        ({'float32': 2.0, 'bfloat16': 1.0}, ['float32', 'bfloat16']),
        ({'float32': 1.0, 'bfloat16': 20.0}, ['float32']),
    ],
)
def test_half_precision_is_timed_where_it_is_faster(monkeypatch, seconds, names):
    monkeypatch.setattr(precision, 'measure_precisions', lambda device: seconds)
    assert common.dtypes('cpu') == names
