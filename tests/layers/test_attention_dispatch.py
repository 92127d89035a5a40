"""'auto' takes what measures fastest, within bounds, and the same again."""

import time

import pytest
import torch

from illama_seg.layers import attention_dispatch as dispatch
from illama_seg.layers.attention import soft_causal_attention
from illama_seg.machine import choices

KIND = 'cpu', torch.float32, 16


@pytest.fixture(autouse=True)
def _auto(file, monkeypatch):
    monkeypatch.setenv(dispatch.VARIABLE, 'auto')


@pytest.fixture
def timed(monkeypatch):
    """Let the measurement find these seconds; returns the cases that were timed."""

    def let(**seconds):
        cases = []

        def times(names, case):
            cases.append(case)
            return {name: seconds[name] for name in names}

        monkeypatch.setattr(dispatch, '_times', times)
        return cases

    return let


def auto(tokens=40, heads=6, training=False, kind=KIND):
    return dispatch.automatic_implementation(
        *kind, num_tokens=tokens, num_heads=heads, training=training
    )


@pytest.mark.parametrize('winner', dispatch.ON_DEVICE['cpu'])
def test_the_choice_follows_the_measurement(timed, winner):
    seconds = dict(blocked=2.0, flash=2.0, reference=2.0) | {winner: 1.0}
    cases = timed(**seconds)
    assert auto().name == winner
    assert auto().name == winner and len(cases) == 1
    assert f'{winner} 1e+03 ms' in auto().reason


def test_what_auto_takes_is_what_runs(timed, monkeypatch):
    timed(blocked=2.0, flash=1.0, reference=3.0)
    ran = []
    for name, function in list(dispatch.IMPLEMENTATIONS.items()):

        def spy(*args, name=name, function=function):
            ran.append(name)
            return function(*args)

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, name, spy)
    x = torch.randn(1, 2, 9, 16)
    soft_causal_attention(x, x, x, 0.0)
    assert ran[-1:] == ['flash']


@pytest.mark.parametrize(
    ('tokens', 'heads', 'timed_tokens', 'timed_heads'),
    [
        (1, 1, 1, 1),
        (40, 6, 32, 8),
        (197, 3, 256, 4),
        (1025, 12, 1024, 16),
        (1025, 96, 1024, 16),  # more heads than scores are allowed for
        (4097, 12, 4096, 1),
        (100_000, 12, 4096, 1),
    ],
)
def test_shapes_are_rounded_and_bounded(
    timed, tokens, heads, timed_tokens, timed_heads
):
    cases = timed(blocked=2.0, flash=1.0, reference=3.0)
    auto(tokens, heads)
    assert cases == [(*KIND, timed_tokens, timed_heads, False)]
    assert timed_tokens**2 * timed_heads <= dispatch.MAX_SCORES


def test_each_class_of_shapes_has_a_choice_of_its_own(timed):
    cases = timed(blocked=2.0, flash=1.0, reference=3.0)
    half = 'cpu', torch.bfloat16, 16
    wide = 'cpu', torch.float32, 32
    for other in (
        dict(),
        dict(tokens=400),
        dict(heads=60),
        dict(training=True),
        dict(kind=half),
        dict(kind=wide),
    ):
        auto(**other)
    assert len(set(cases)) == 6
    auto(tokens=41, heads=7)  # rounded, the first one's
    assert len(cases) == 6


def test_the_formula_takes_no_part_in_long_sequences(timed):
    timed(blocked=2.0, flash=1.5, reference=1.0)
    assert auto(tokens=1025).name == 'reference'
    assert auto(tokens=4097).name == 'flash'


def test_measurements_end_after_some_seconds_in_all(timed, monkeypatch):
    cases = timed(blocked=2.0, flash=1.0, reference=3.0)
    monkeypatch.setattr(choices, '_spent', choices.MAX_SECONDS + 1)
    found = auto()
    assert (found.name, found.reason, cases) == ('blocked', 'not measured', [])


def test_a_real_measurement_is_short_and_moves_no_random_number():
    before, start = torch.get_rng_state(), time.perf_counter()
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        found = auto(tokens=600, heads=6, training=True)
    assert set(found.seconds) == {'blocked', 'flash', 'reference'}
    assert found.name == min(found.seconds, key=found.seconds.get)
    assert time.perf_counter() - start < 60  # seconds even beside other processes
    assert choices._spent > 0 and torch.equal(before, torch.get_rng_state())


def test_the_next_process_measures_nothing(timed, file):
    timed(blocked=2.0, flash=1.0, reference=3.0)
    auto()
    assert file.exists()
    choices.forget()
    cases = timed(blocked=0.0, flash=1.0, reference=3.0)
    assert auto().name == 'flash' and not cases


@pytest.mark.parametrize('name', dispatch.ON_DEVICE['cpu'])
def test_the_variable_fixes_the_implementation(timed, monkeypatch, name):
    cases = timed(blocked=2.0, flash=1.0, reference=3.0)
    monkeypatch.setenv(dispatch.VARIABLE, name)
    assert auto().name == name and not cases
    monkeypatch.setenv(dispatch.VARIABLE, 'fixed')
    assert auto().name == 'blocked' and not cases


@pytest.mark.parametrize('name', ['triton', 'fast'])
def test_a_variable_that_names_nothing_usable_is_refused(monkeypatch, name):
    monkeypatch.setenv(dispatch.VARIABLE, name)
    with pytest.raises(
        ValueError, match=f'{dispatch.VARIABLE}={name}.*auto, fixed, bl'
    ):
        auto()


def test_a_resumed_run_keeps_its_choice(timed):
    timed(blocked=2.0, flash=1.0, reference=3.0)
    auto()
    (saved,) = [choices.made()]
    choices.forget()
    timed(blocked=1.0, flash=2.0, reference=3.0)
    choices.resume(saved)
    assert auto().name == 'flash' and 'resumed' in auto().reason
    assert auto(tokens=400).name == 'blocked'  # the run never met that class


def test_nothing_is_measured_while_torch_compiles(timed):
    cases = timed(blocked=2.0, flash=1.0, reference=3.0)
    torch._dynamo.reset()
    compiled = torch.compile(soft_causal_attention, fullgraph=True, backend='eager')
    x = torch.randn(1, 2, 9, 16)
    found = compiled(x, x, x, torch.tensor(0.25))
    assert not cases
    assert torch.equal(found, soft_causal_attention(x, x, x, 0.25, 'blocked'))


def test_the_formula_is_no_choice_for_a_training_of_many_tokens(timed):
    """It would keep the N x N weights of every layer."""
    timed(blocked=2.0, flash=1.5, reference=1.0)
    assert auto(tokens=1025, training=True).name == 'flash'
    assert auto(tokens=257, training=True).name == 'reference'
    assert auto(tokens=1025).name == 'reference'


def test_triton_is_not_timed(monkeypatch):
    names = 'flash', 'triton', 'reference'
    monkeypatch.setattr(dispatch, 'available_implementations', lambda *kind: names)
    kind = 'cuda', torch.bfloat16, 64
    candidates = dispatch._candidates.__wrapped__(*kind, 197, False)
    assert candidates == ('flash', 'reference')
    # Nor where flash does not work, and many tokens are trained.
    monkeypatch.setattr(dispatch, 'available_implementations', lambda *kind: names[1:])
    assert dispatch._candidates.__wrapped__(*kind, 1025, True) == ('reference',)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_a_gpu_measures_its_own_implementations():
    kind = 'cuda', torch.bfloat16, 64
    found = auto(197, 24, True, kind)
    assert set(found.seconds) == {'flash', 'reference'}


@pytest.mark.parametrize('before', ['reference', 'budget'])
def test_a_resumed_run_keeps_what_was_not_measured(before, timed, monkeypatch):
    """A choice by the variable, or by the budget that was spent, goes on as well."""
    timed(blocked=2.0, flash=1.0, reference=3.0)
    if before == 'budget':
        monkeypatch.setattr(choices, '_spent', choices.MAX_SECONDS + 1)
    else:
        monkeypatch.setenv(dispatch.VARIABLE, before)
    name = auto(training=True).name
    assert name != 'flash'
    saved = choices.made()
    assert name in saved.values()
    choices.forget()
    monkeypatch.setattr(choices, '_spent', 0.0)
    monkeypatch.setenv(dispatch.VARIABLE, 'auto')
    choices.resume(saved)
    assert auto(training=True).name == name


def test_a_checkpoint_records_what_ran_not_what_was_resumed(timed):
    timed(blocked=1.0, flash=2.0, reference=3.0)
    auto(training=True)
    (key,) = choices.made()
    choices.forget()
    choices.resume({key: 'triton'})  # does not work on a CPU
    assert auto(training=True).name == 'blocked'
    assert choices.made() == {key: 'blocked'}


@pytest.mark.parametrize('training', [True, False])
def test_a_training_is_timed_with_its_backward_pass(training, monkeypatch):
    passes = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            return q + k + v

        @staticmethod
        def backward(ctx, grad):
            passes.append('backward')
            return grad, grad, grad

    def attend(q, k, v, rate):
        passes.append('forward')
        return Watched.apply(q, k, v)

    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, 'reference', attend)
    dispatch._times(('reference',), dispatch._Case(*KIND, 8, 2, training))
    assert passes.count('backward') == (passes.count('forward') if training else 0)
