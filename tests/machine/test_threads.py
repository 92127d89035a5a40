"""How threads wait: set before torch is loaded, left to the user where set."""

import os
import subprocess
import sys

import pytest

from illama_seg.machine import threads


@pytest.fixture
def environment(monkeypatch):
    """An environment without any of the variables, and without torch."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, 'torch')
    return os.environ


def test_threads_sleep_at_once_by_default(environment):
    threads.set_wait_policy()
    assert {k: environment[k] for k in threads.DEFAULTS} == threads.DEFAULTS
    assert 'OMP_WAIT_POLICY=PASSIVE' in threads.describe_wait_policy()


@pytest.mark.parametrize('name', threads.VARIABLES)
def test_what_the_user_set_stays(environment, monkeypatch, name):
    monkeypatch.setenv(name, 'ACTIVE')
    threads.set_wait_policy()
    assert [v for v in threads.VARIABLES if v in environment] == [name]
    assert threads.describe_wait_policy() == f'{name}=ACTIVE'


def test_a_torch_that_is_loaded_is_left_alone(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    threads.set_wait_policy()
    assert not any(name in environment for name in threads.VARIABLES)
    assert threads.describe_wait_policy().startswith("OpenMP's default")


def test_importing_the_package_sets_the_policy_before_torch_loads():
    code = (
        'import sys, illama_seg.machine.threads as t\n'
        'import illama_seg, os\n'
        'assert "torch" in sys.modules\n'
        'print(os.environ["OMP_WAIT_POLICY"])'
    )
    environment = {k: v for k, v in os.environ.items() if k not in threads.VARIABLES}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == list(threads.DEFAULTS.values()), done.stderr
