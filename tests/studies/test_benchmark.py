import json
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.config import DictAction
from tiny_run import CONFIG, ROOT, model_options, run_tool

from illama_seg.machine import precision
from illama_seg.studies import benchmark, common, peak_memory, run_benchmark
from illama_seg.studies.complexity.counts import count_multiply_accumulates

DIGITS = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'


@pytest.fixture
def tiny():
    """Overrides that make the ADE20K config a tiny model."""
    pairs = (option.split('=', 1) for option in model_options())
    return {key: DictAction._parse_iterable(value) for key, value in pairs}


@pytest.fixture
def no_child(monkeypatch):
    """Without the new process that only measures memory."""
    monkeypatch.setattr(benchmark, 'peak_in_child', lambda *case: 123.0)


def test_a_segmentor_is_timed_counted_and_written(tiny, no_child, tmp_path):
    out = tmp_path / 'there' / 'b.json'
    numbers, text = run_benchmark(
        CONFIG, out=out, batch_sizes=(1, 2), repeat=2, device='cpu', cfg_options=tiny
    )
    assert json.loads(out.read_text()) == json.loads(json.dumps(numbers))
    assert numbers['shape'] == (64, 64) and numbers['precision'] == 'float32'
    assert numbers['attention'] == "soft mask by 'blocked', fixed, 17 tokens"
    for size, row in zip((1, 2), numbers['timings'], strict=True):
        assert row['batch_size'] == size and len(row['all_seconds']) == 2
        assert 0 < row['fastest'] <= row['seconds'] <= row['slowest']
        assert row['images_per_second'] == pytest.approx(size / row['seconds'])
        assert row['peak_memory_mib'] == 123
    parameters = numbers['parameters']
    assert parameters['all'] == sum(parameters.values()) - parameters['all']
    assert set(parameters) == {
        'backbone',
        'neck',
        'decode_head',
        'auxiliary_head',
        'all',
    }
    assert 'multiply-accumulates, not FLOPs: torch counts 2 for each' in text


def test_multiply_accumulates_are_labelled_by_shape_products_and_head(tiny, no_child):
    cfg = benchmark.load_config(CONFIG, tiny)
    rows = benchmark._counts(cfg, (64, 64))
    with torch.device('meta'):
        model = benchmark.build_model(cfg)
    found = {
        (*row['shape'], row['attention_products'], row['auxiliary_head']): row['count']
        for row in rows
    }
    assert len(found) == len(rows) == 12
    for shape in ((64, 64), (512, 512), (512, 2048)):
        macs = count_multiply_accumulates(model, shape)
        for attention in (False, True):
            for auxiliary in (False, True):
                expected = macs.total(attention, auxiliary)
                assert found[(*shape, attention, auxiliary)] == expected


def test_a_classifier_has_no_auxiliary_head_and_its_own_size(no_child, tmp_path):
    options = ['--cfg-options', f'work_dir={tmp_path}']
    run_tool('analysis/benchmark', DIGITS, '--repeat', 1, '--device', 'cpu', *options)
    numbers = json.loads((tmp_path / 'benchmark.json').read_text())
    assert numbers['shape'] == [8, 8] and set(numbers['parameters']) == {
        'backbone',
        'head',
        'all',
    }
    assert [row['auxiliary_head'] for row in numbers['multiply_accumulates']] == [
        False,
        False,
    ]


def test_passes_to_warm_up_do_not_count(tiny, no_child, tmp_path, monkeypatch):
    durations = [100, 100, 100, 1, 3, 2]
    clock = iter([t for d in durations for t in (0, d)])
    monkeypatch.setattr(
        benchmark, 'time', SimpleNamespace(perf_counter=lambda: next(clock))
    )
    out = tmp_path / 'b.json'
    numbers, text = run_benchmark(
        CONFIG, out=out, repeat=3, device='cpu', cfg_options=tiny
    )
    (row,) = numbers['timings']
    assert (row['seconds'], row['fastest'], row['slowest']) == (2, 1, 3)
    assert '1 to 3' in text and row['images_per_second'] == 0.5


@pytest.mark.parametrize('name', ['float32', 'bfloat16'])
def test_amp_computes_in_what_is_faster(no_child, tmp_path, monkeypatch, name):
    other = {'bfloat16': 'float32', 'float32': 'bfloat16'}[name]
    seconds = dict(sorted(({name: 1.0, other: 2.0}).items(), reverse=True))
    monkeypatch.setattr(precision, 'measure_precisions', lambda device: seconds)
    build, seen = benchmark.build_model, set()

    def watched(cfg):
        model = build(cfg)
        model.head.register_forward_hook(lambda _, args, out: seen.add(out.dtype))
        return model

    monkeypatch.setattr(benchmark, 'build_model', watched)
    monkeypatch.setattr(benchmark, '_counts', lambda *_: [])
    numbers, _ = run_benchmark(
        DIGITS, out=tmp_path / 'b.json', repeat=1, amp=True, device='cpu'
    )
    assert numbers['precision'] == name and seen == {getattr(torch, name)}
    assert 'measured 1000.0 ms' in numbers['precision_reason'] or name != 'float32'


@pytest.mark.slow
def test_peak_memory_is_that_of_a_new_process():
    held = torch.ones(2**29)  # 2 GiB, of this one
    peak = peak_memory.peak_in_child(str(DIGITS), None, (8, 8), torch.float32, {}, 1)
    assert 50 < peak < held.nbytes / 2**20


def test_peak_memory_is_that_of_the_whole_batch(monkeypatch):
    passes = []
    monkeypatch.setattr(peak_memory, 'forward_pass', lambda *args: passes.append(args))
    threads = torch.get_num_threads()
    peak_memory._peak(threads, str(DIGITS), None, (8, 12), torch.bfloat16, {}, 5)
    ((_, image, dtype),) = passes
    assert image.shape == (5, 3, 8, 12) and dtype == torch.bfloat16


def test_a_memory_too_small_is_a_row_not_the_end(tiny, tmp_path, monkeypatch):
    pool = mock.MagicMock()
    future = pool.return_value.__enter__.return_value.submit.return_value
    future.result.side_effect = [BrokenProcessPool, 99.0]
    monkeypatch.setattr(common, 'ProcessPoolExecutor', pool)
    numbers, text = run_benchmark(
        CONFIG,
        out=tmp_path / 'b.json',
        batch_sizes=(64, 1),
        repeat=1,
        device='cpu',
        cfg_options=tiny,
    )
    assert numbers['timings'][0] == dict(
        batch_size=64, peak_memory_mib=None, out_of_memory=True
    )
    assert numbers['timings'][1]['seconds'] > 0 and 'out of memory' in text


def test_a_checkpoint_is_that_of_the_model(no_child, tmp_path):
    model = benchmark.build_model(benchmark.load_config(DIGITS))
    state, path, out = model.state_dict(), tmp_path / 'a.pth', tmp_path / 'b.json'
    torch.save(dict(state_dict=state), path)
    numbers, _ = run_benchmark(DIGITS, path, out=out, repeat=1, device='cpu')
    assert numbers['checkpoint'] == str(path)
    state.popitem()
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match=r'a\.pth is not a checkpoint of this model'):
        run_benchmark(DIGITS, path, out=out, repeat=1, device='cpu')


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(repeat=0), 'repeat=0'),
        (dict(batch_sizes=(1, 0)), r'batch_sizes=\(1, 0\)'),
        (dict(shape=(0, 8)), r'shape=\(0, 8\)'),
        (dict(device='cuda:99'), "device='cuda:99': cannot"),
        (dict(device='gpu'), "device='gpu': cannot"),
        (dict(out='/proc/none/b.json'), r'/proc/none.: cannot be written'),
    ],
)
def test_an_option_out_of_its_range_is_named(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        run_benchmark(DIGITS, **dict(out=tmp_path / 'b.json') | options)


def test_an_image_too_small_for_the_model_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'shape=\(8, 8\): the model does not accept'):
        run_benchmark('upernet_illama_demo', out=tmp_path / 'b.json', shape=(8, 8))
