"""Choices by measurement: the fastest wins, is kept, stored, resumed."""

import json
import subprocess
import sys
import time

import pytest
import torch

from illama_seg.machine import choices


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """Path of a file of choices of this test's own."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(choices, '_switches', lambda: 0)
    choices.forget()
    yield tmp_path / 'illama_seg' / 'measured.json'
    choices.forget()


NAMES = ('a', 'b')


DAMAGED = [{'seconds': 1}, {'name': 'a', 'seconds': {'a': 'x'}}, {'seconds': {}}]


def take(**seconds):
    return choices.choose('key', 'cpu', lambda: seconds)


@pytest.mark.parametrize(('seconds', 'name'), [((1, 2), 'a'), ((2, 1), 'b')])
def test_the_fastest_is_chosen_and_recalled(seconds, name):
    assert choices.recall('key', 'cpu', NAMES) is None
    assert take(a=seconds[0], b=seconds[1]).name == name
    assert choices.recall('key', 'cpu', NAMES).name == name
    assert choices.recall('another key', 'cpu', NAMES) is None


def test_another_process_reads_the_choice_from_the_file(file):
    take(a=2.0, b=1.0)
    choices.forget()  # as a new process has it
    found = choices.recall('key', 'cpu', NAMES)
    assert (found.name, found.source) == ('b', choices.STORED)
    assert found.seconds == {'a': 2.0, 'b': 1.0}
    (place,) = json.loads(file.read_text())
    assert torch.backends.cpu.get_cpu_capability() in place
    assert torch.__version__ in place


def test_removing_the_file_measures_anew(file):
    take(a=2.0, b=1.0)
    file.unlink()
    choices.forget()
    assert choices.recall('key', 'cpu', NAMES) is None


def test_a_choice_of_another_machine_is_not_taken(file, monkeypatch):
    take(a=2.0, b=1.0)
    choices.forget()
    monkeypatch.setattr(choices, 'machine', lambda device: 'another processor')
    assert choices.recall('key', 'cpu', NAMES) is None
    take(a=1.0, b=2.0)
    assert len(json.loads(file.read_text())) == 2  # both are kept


def test_times_of_a_busy_machine_are_used_but_not_stored(file, monkeypatch):
    monkeypatch.setattr(choices, '_switches', iter([0, 1000]).__next__)
    found = take(a=2.0, b=1.0)
    assert found.name == 'b' and 'busy' in found.reason
    assert not file.exists()


@pytest.mark.parametrize(
    'text',
    ['', '{', '[]', '{"x": 1}', '[' * 100_000, '\0'],
    ids=['empty', 'cut', 'list', 'number', 'deep', 'nul'],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(file, text):
    file.parent.mkdir()
    file.write_text(text)
    assert choices.recall('key', 'cpu', NAMES) is None
    take(a=2.0, b=1.0)
    choices.forget()
    assert choices.recall('key', 'cpu', NAMES).name == 'b'


@pytest.mark.parametrize('entry', [3, {}, {'name': 'z', 'seconds': {}}, *DAMAGED])
def test_a_damaged_entry_is_overlooked(file, entry):
    file.parent.mkdir()
    file.write_text(json.dumps({choices.machine('cpu'): {'key': entry}}))
    assert choices.recall('key', 'cpu', NAMES) is None


def test_a_cache_that_cannot_be_written_changes_nothing(file, monkeypatch):
    file.parent.write_text('a file where the folder should be')
    assert take(a=2.0, b=1.0).name == 'b'
    assert choices.recall('key', 'cpu', NAMES).name == 'b'


def test_a_resumed_choice_comes_before_this_machines():
    take(a=2.0, b=1.0)
    choices.resume({'key': 'a', 'damaged': 3})
    assert choices.recall('key', 'cpu', NAMES).name == 'a'
    assert choices.made() == {'key': 'a'}  # and it goes into the next checkpoint


@pytest.mark.parametrize('record', [None, [], 'text', {'key': 'gone'}, {'key': None}])
def test_a_resumed_choice_that_does_not_work_here_is_measured_anew(record):
    take(a=2.0, b=1.0)
    choices.resume(record)
    assert choices.recall('key', 'cpu', NAMES).name == 'b'


def test_times_are_of_the_fastest_run_and_calls_take_turns():
    order, naps = [], {'a': iter([0.02, *[0.001] * 9]), 'b': iter([0.004] * 10)}

    def call(name):
        order.append(name)
        time.sleep(next(naps[name]))

    found = choices.fastest_times({n: lambda n=n: call(n) for n in naps})
    assert found['a'] < found['b']  # the slow first run of a was to warm up
    assert order[:4] == ['a', 'b', 'a', 'b']


def test_an_expensive_call_far_behind_is_not_repeated():
    count = {'slow': 0, 'quick': 0}

    def call(name, seconds):
        count[name] += 1
        time.sleep(seconds)

    calls = dict(slow=lambda: call('slow', 0.15), quick=lambda: call('quick', 1e-4))
    choices.fastest_times(calls)
    assert count['slow'] == 1 and count['quick'] > 2


@pytest.mark.slow
def test_processes_that_choose_at_once_leave_a_readable_file(file, tmp_path):
    code = (
        'import sys; from illama_seg.machine import choices\n'
        'choices._switches = lambda: 0\n'  # a busy machine stores nothing
        'for i in range(20):\n'
        '    choices.choose(f"{sys.argv[1]} {i}", "cpu", lambda: dict(a=1.0))\n'
    )
    children = [
        subprocess.Popen([sys.executable, '-c', code, name]) for name in ('x', 'y')
    ]
    assert [child.wait(timeout=300) for child in children] == [0, 0]
    (content,) = json.loads(file.read_text()).values()
    assert content and not list(file.parent.glob('tmp*'))


def test_a_machine_is_its_threads_and_the_limits_of_its_instructions(monkeypatch):
    for name in choices.LIMITS:
        monkeypatch.delenv(name, raising=False)
    found = {choices.machine('cpu')}
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 99)
    found.add(choices.machine('cpu'))
    for name in choices.LIMITS:
        monkeypatch.setenv(name, 'AVX2')
        found.add(choices.machine('cpu'))
    assert len(found) == 2 + len(choices.LIMITS)


@pytest.mark.parametrize(('switches', 'is_stored'), [(2, True), (1000, False)])
def test_a_thousand_switches_in_no_time_are_a_busy_machine(
    switches, is_stored, monkeypatch, file
):
    counts = iter([0, switches])
    monkeypatch.setattr(choices, '_switches', lambda: next(counts))
    take(a=1.0, b=2.0)
    assert file.exists() == is_stored
