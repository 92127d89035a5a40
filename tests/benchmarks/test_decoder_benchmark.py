"""benchmarks/decoder.py and decoder_study.py: what they run and write; no timings."""

import json
import sys

import numpy as np
import pytest
import torch
from tiny_run import ROOT

sys.path.insert(0, str(ROOT / 'benchmarks'))
import decoder as benchmark
import decoder_study as study


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


def test_every_group_of_the_study_has_a_config_and_every_contrast_two_groups():
    for group in study.GROUPS.values():
        assert (ROOT / study.CONFIGS / f'{group.config}.py').is_file()
    for _, *sides in study.CONTRASTS:
        for name, evaluation in sides:
            assert evaluation in study.GROUPS[name].evaluations


def test_contrasts_are_paired_by_seed_and_the_picture_is_drawn(tmp_path):
    scores = {
        ('strict_tokens', 0): 40.0,
        ('strict_tokens', 1): 50.0,
        ('strict_linear', 0): 41.0,
        ('strict_linear', 1): 49.5,
        ('strict_linear', 2): 9.0,
    }
    hits = np.full((study.PARTS, 11), 500).tolist()
    unions = np.full((study.PARTS, 11), 2000).tolist()
    for (group, seed), miou in scores.items():
        evaluation = dict(mIoU=miou, hits=hits, unions=unions)
        numbers = dict(group=group, seed=seed, evaluations={'': evaluation})
        (tmp_path / f'{group}_{seed}.json').write_text(json.dumps(numbers))
    text = study.report(tmp_path)
    assert '| strict, class tokens |  | 45.0 ± 7.1 | 40.0, 50.0 |' in text
    assert 'E1, primary: strict, class tokens minus strict, linear' in text
    assert '-0.2 ± 1.1 | -1.0, +0.5 |' in text
    study.draw(tmp_path, tmp_path / 'rows.png')
    assert (tmp_path / 'rows.png').stat().st_size > 10_000
