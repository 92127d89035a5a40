"""Half precision only where it measures faster."""

import pytest
import torch

from illama_seg.machine import precision
from illama_seg.machine.precision import choose_precision, precision_with

FASTER, SLOWER = {'float32': 2.0, 'bfloat16': 1.0}, {'float32': 1.0, 'bfloat16': 20.0}


@pytest.fixture(autouse=True)
def timings(monkeypatch):
    """Let a measurement find these seconds."""
    monkeypatch.delenv(precision.VARIABLE, raising=False)

    def let(seconds):
        monkeypatch.setattr(precision, 'measure_precisions', lambda device: seconds)

    return let


@pytest.mark.parametrize(
    ('seconds', 'name'), [(FASTER, 'bfloat16'), (SLOWER, 'float32')]
)
def test_the_measurement_decides_and_both_times_are_said(timings, seconds, name):
    timings(seconds)
    found = choose_precision('cpu')
    assert found.name == name and found.dtype == getattr(torch, name)
    for key, value in seconds.items():
        assert f'{1000 * value:.1f} ms in {key}' in found.reason


def test_a_gain_within_the_noise_is_none(timings):
    timings({'float32': 1.0, 'bfloat16': 0.95})
    assert choose_precision('cpu').name == 'float32'


def test_float16_is_compared_where_a_gpu_has_no_bfloat16(monkeypatch, timings):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda emulated: emulated)
    assert precision.half_precision('cuda') == 'float16'
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda emulated: True)
    assert precision.half_precision('cuda') == 'bfloat16'
    timings({'float32': 3.0, 'float16': 1.0})
    assert choose_precision('cuda').name == 'float16'


def test_a_device_without_autocast_computes_in_float32():
    assert precision.half_precision('meta') is None
    assert precision.measure_precisions('meta') == {'float32': 0.0}


@pytest.mark.parametrize('name', precision.PRECISIONS)
def test_what_is_set_is_not_measured(monkeypatch, timings, name):
    timings(None)  # a measurement would fail
    assert choose_precision('cpu', name).name == name
    assert choose_precision('cpu', name, resumed='float32').name == name
    monkeypatch.setenv(precision.VARIABLE, name)
    found = choose_precision('cpu', resumed='float32')
    assert found.name == name and precision.VARIABLE in found.reason


def test_a_resumed_run_keeps_its_precision_and_says_what_differs(timings):
    timings(SLOWER)
    found = choose_precision('cpu', resumed='bfloat16')
    assert found.name == 'bfloat16'
    assert 'kept from the resumed run, though here measured 1000.0 ms' in found.reason
    timings(FASTER)
    assert 'kept' not in choose_precision('cpu', resumed='bfloat16').reason


@pytest.mark.parametrize('place', ['wanted', 'variable', 'resumed'])
def test_an_unknown_name_is_refused(monkeypatch, timings, place):
    timings(FASTER)
    options = {place: 'half'} if place != 'variable' else {}
    if place == 'variable':
        monkeypatch.setenv(precision.VARIABLE, 'half')
    with pytest.raises(ValueError, match="'half': expected one of auto, float32"):
        choose_precision('cpu', **options)


def test_where_nothing_is_to_choose_the_variable_has_no_effect_and_the_reason_says_so(
    monkeypatch,
):
    for asked in ('', 'auto', 'float32'):
        monkeypatch.setenv(precision.VARIABLE, asked)
        assert precision_with(False, 'cpu') == ('float32', 'float32, without amp')
    monkeypatch.setenv(precision.VARIABLE, 'bfloat16')
    assert precision_with(True, 'cpu').name == 'bfloat16'
    for found in (precision_with(False, 'cpu'), choose_precision('cpu', 'float32')):
        assert found.name == 'float32'
        assert found.reason.endswith(f'; {precision.VARIABLE}=bfloat16 has no effect')


def test_the_real_measurement_times_both_and_moves_no_random_number():
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        found = precision.measure_precisions.__wrapped__('cpu')
    assert list(found) == ['float32', 'bfloat16'] and min(found.values()) > 0
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_real_measurement_runs_on_a_gpu():
    assert len(precision.measure_precisions.__wrapped__('cuda')) == 2


def test_a_cpu_is_timed_in_one_thread_and_gets_its_threads_back(monkeypatch):
    seen, before = [], torch.get_num_threads()

    def times(calls):
        seen.append(torch.get_num_threads())
        return dict.fromkeys(calls, 1.0)

    monkeypatch.setattr(precision, 'fastest_times', times)
    monkeypatch.setattr(precision, '_work', lambda device, name: None)
    precision.measure_precisions.__wrapped__('cpu')
    assert seen == [1] and torch.get_num_threads() == before
