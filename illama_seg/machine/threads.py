"""Wait policy of OpenMP's threads, set before torch is loaded.

A thread that waits spins first, by default for milliseconds. Where another process
needs the core, that is time in which nobody computes: measured on two cores, two
trainings side by side took ten times as long as one. Threads that sleep at once make a
quiet machine slower, by a quarter or more in small models (docs/machines.md has the
table; benchmarks/threads.py measures it).
"""

import os
import sys
from collections.abc import Mapping

DEFAULTS = {'OMP_WAIT_POLICY': 'PASSIVE'}
# OpenMP's own, and those of libgomp and of Intel's and LLVM's OpenMP. What a user sets
# stays.
VARIABLES = (*DEFAULTS, 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'KMP_LIBRARY')


def set_wait_policy() -> None:
    """Let waiting threads sleep at once, unless the user or a loaded torch decided."""
    if 'torch' not in sys.modules and not any(map(os.environ.get, VARIABLES)):
        os.environ.update(DEFAULTS)


def describe_wait_policy(environment: Mapping[str, str] = os.environ) -> str:
    """Name the variables that decide how threads wait, with their values."""
    found = {name: environment[name] for name in VARIABLES if environment.get(name)}
    text = ' '.join(f'{name}={value}' for name, value in found.items())
    return text or "OpenMP's default: threads spin while they wait"
