"""benchmarks/threads.py: every policy and condition, and its verdict."""

import json
import sys

import pytest
from tiny_run import ROOT, run_python

SCRIPT = ROOT / 'benchmarks' / 'threads.py'
sys.path.insert(0, str(SCRIPT.parent))
import threads as benchmark  # noqa: E402

from illama_seg.machine import threads  # noqa: E402


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Run main() with given seconds of each condition; its end and its text."""

    def call(seconds, *options):
        monkeypatch.setattr(
            benchmark,
            'measure',
            lambda policy, condition, _: dict(
                iteration=2 * seconds[condition] - 1, whole=seconds[condition]
            ),
        )
        arguments = ['threads.py', '--out', str(tmp_path), *options]
        monkeypatch.setattr(sys, 'argv', arguments)
        benchmark.main()
        return capsys.readouterr().out

    return call


def test_every_policy_is_measured_under_every_condition(run, tmp_path):
    text = run(dict(alone=1.0, busy=2.0, two=2.4))
    assert 'two trainings side by side take 2.40 times one alone' in text
    assert 'an iteration of theirs 3.80 times' in text
    record = json.loads((tmp_path / 'threads.json').read_text())
    assert set(record['seconds']) == set(benchmark.POLICIES)
    assert record['seconds']['100 spins']['two'] == dict(iteration=3.8, whole=2.4)


def test_two_that_are_slower_than_the_limit_are_an_error(run):
    with pytest.raises(SystemExit, match=r'at most 2\.5 times'):
        run(dict(alone=1.0, busy=2.0, two=2.6))


def test_a_policy_reaches_the_process_and_the_users_own_does_not(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    seen = []
    monkeypatch.setattr(
        benchmark.subprocess, 'Popen', lambda *a, env, **_: seen.append(env)
    )
    for policy, variables in benchmark.POLICIES.items():
        benchmark.start(policy, 1)
        found = {k: v for k, v in seen[-1].items() if k in benchmark.VARIABLES}
        assert found == variables, policy
    assert set(threads.VARIABLES) < set(benchmark.VARIABLES)


@pytest.mark.slow
def test_a_real_iteration_is_timed(tmp_path):
    options = ['--policies', 'tools', '--conditions', 'alone', '--iterations', '1']
    done = run_python(SCRIPT, *options, '--out', tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / 'threads.json').read_text())
    assert record['seconds']['tools']['alone']['iteration'] > 0
    assert record['machine'].strip()
