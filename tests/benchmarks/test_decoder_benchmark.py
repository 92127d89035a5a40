"""benchmarks/decoder.py: what it runs and writes; no timings."""

import json
import sys

import pytest
import torch
from tiny_run import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import decoder as benchmark


@pytest.mark.slow
def test_every_call_is_timed_and_the_stream_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, 'SIZE', (48, 64))
    monkeypatch.setattr(benchmark, 'MEMORY_ROWS', 2)
    stream = benchmark.stream
    monkeypatch.setattr(benchmark, 'stream', lambda: stream(160))
    command = [
        'decoder.py',
        '--archs',
        'tiny',
        '--repeats',
        '1',
        '--out',
        str(tmp_path),
    ]
    threads = ['--threads', str(torch.get_num_threads())]
    monkeypatch.setattr(sys, 'argv', [*command, *threads])
    benchmark.main()
    record = json.loads((tmp_path / 'decoder.json').read_text())
    assert tuple(row['name'] for row in record['rows']) == benchmark.NAMES
    assert len(record['stream']['milliseconds']) == 10
    kept = record['stream']['kept_mib']
    assert kept[0] < kept[1] == kept[-1]  # two rows of patches
    assert (tmp_path / 'decoder.png').stat().st_size > 10_000


def test_bands_and_reading_again_compute_what_is_compared():
    torch.manual_seed(0)
    model = benchmark.build('queries/illama_tiny_queries_ade20k').backbone
    images = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        whole, reading = model(images)[0], None
        for band in images.split(16, dim=2):
            reading = model.read(band, reading, None if reading else 3)
    torch.testing.assert_close(reading.maps[0], whole[:, :, 2:], rtol=1e-4, atol=1e-4)
