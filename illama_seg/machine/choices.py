"""The fastest of several ways to compute the same, found by timing them here.

A choice is kept for the process, and in a file for the next one: ``measured.json`` in
``$XDG_CACHE_HOME/illama_seg`` or ``~/.cache/illama_seg``, by processor, number of
threads and version of torch. The file may be removed at any time. Where it cannot be
read or written, every process measures anew.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEASURED, STORED, RESUMED = 'measured', 'measured before', 'kept from the resumed run'
ROUNDS = 5
SECONDS = 0.4  # for the rounds after the first
MAX_SECONDS = 4.0  # for all measurements of a process by :func:`decide`
# Times a second that a process leaves a core: a few if quiet, hundreds if busy.
MAX_SWITCHES = 60
# Instruction sets that libraries of torch are kept from by hand.
LIMITS = ('ONEDNN_MAX_CPU_ISA', 'MKL_ENABLE_INSTRUCTIONS')
T = TypeVar('T')


class Choice(NamedTuple):
    """Name of the way chosen, seconds of each way timed, and where it comes from."""

    name: str
    seconds: Mapping[str, float]
    source: str

    @property
    def reason(self) -> str:
        """Phrase for the log: the source, and the times where there are some."""
        if not self.seconds:
            return self.source
        times = (f'{name} {1e3 * s:.3g} ms' for name, s in self.seconds.items())
        return f'{self.source} ({", ".join(times)})'


_made: dict[str, Choice] = {}
_resumed: dict[str, str] = {}
_used: dict[str, str] = {}
_may_measure = True
_spent = 0.0


def recall(key: str, device: str, names: tuple[str, ...]) -> Choice | None:
    """Look a choice up: a resumed run's, this process's, then the file's.

    Args:
        key: kind of work that the choice is for.
        device: type of device, such as 'cpu'.
        names: ways that work here; a choice of any other way is overlooked.

    Returns:
        The choice, or None where there is none.
    """
    if _resumed.get(key) in names:
        return Choice(_resumed[key], {}, RESUMED)
    if key not in _made:
        entry = _stored().get(machine(device), {}).get(key)
        if entry and _is_choice(entry) and entry['name'] in names:
            _made[key] = Choice(entry['name'], entry['seconds'], STORED)
    found = _made.get(key)
    return found if found and found.name in names else None


def _is_choice(entry: Any) -> bool:
    """Check an entry of the file, which anybody may have written."""
    if not isinstance(entry, dict) or not isinstance(entry.get('seconds'), dict):
        return False
    numbers = entry['seconds'].values()
    return 'name' in entry and all(isinstance(n, (int, float)) for n in numbers)


def decide(
    key: str,
    device: str,
    names: tuple[str, ...],
    fixed: str,
    measure: Callable[[], Mapping[str, float]],
) -> Choice:
    """Recall a choice, or make it by a measurement.

    A process that has spent ``MAX_SECONDS`` measures nothing more.

    Args:
        key: kind of work that the choice is for.
        device: type of device, such as 'cpu'.
        names: ways that work here.
        fixed: way to take where nothing may be measured.
        measure: returns the seconds of each way, by name.
    """
    global _spent
    if known := recall(key, device, names):
        return known
    if len(names) == 1 or _spent > MAX_SECONDS or not _may_measure:
        return Choice(fixed, {}, 'not measured')
    start = time.perf_counter()
    chosen = choose(key, device, measure)
    _spent += time.perf_counter() - start
    return chosen


def choose(key: str, device: str, measure: Callable[[], Mapping[str, float]]) -> Choice:
    """Choose the fastest way and keep the choice, in the process and in the file.

    Times of a busy machine do not go into the file.

    Args:
        key: kind of work that the choice is for.
        device: type of device, such as 'cpu'.
        measure: returns the seconds of each way, by name.
    """
    before, start = _switches(), time.perf_counter()
    seconds = dict(apart(measure))
    elapsed = time.perf_counter() - start
    busy = _switches() - before > 3 + MAX_SWITCHES * elapsed
    source = f'{MEASURED} while the machine is busy' if busy else MEASURED
    choice = Choice(min(seconds, key=seconds.__getitem__), seconds, source)
    _made[key] = choice
    if not busy:
        _store(machine(device), key, dict(name=choice.name, seconds=seconds))
    return choice


def _switches() -> int:
    """Number of times that this process had to leave a core to another one."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def noted(key: str, choice: Choice) -> Choice:
    """Note the way that runs, however it was chosen, so that a resumed run keeps it.

    Returns:
        The choice; its source says where a resumed run goes on in another way.
    """
    _used[key] = choice.name
    before = _resumed.get(key, choice.name)
    if before == choice.name:
        return choice
    goes_on = f'trained with {before!r}, goes on with {choice.name!r}'
    return choice._replace(source=f'{goes_on}, {choice.source}')


def made() -> dict[str, str]:
    """Return the names for a checkpoint: what ran, else what was resumed or chosen."""
    return {key: choice.name for key, choice in _made.items()} | _resumed | _used


def resume(choices: Any) -> None:
    """Take over the choices of a run that is resumed; of a damaged record, none."""
    pairs = choices.items() if isinstance(choices, dict) else ()
    _resumed.clear()
    _resumed.update((k, v) for k, v in pairs if isinstance(v, str))


def forget() -> None:
    """Forget what this process chose or resumed; the file stays."""
    _made.clear()
    _resumed.clear()
    _used.clear()
    _stored.cache_clear()


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Keep the choices as they are: meanwhile nothing is measured, nothing is noted."""
    global _may_measure
    records: tuple[dict[str, Any], ...] = (_made, _used)
    kept = [(record, dict(record)) for record in records]
    _may_measure = False
    try:
        yield
    finally:
        _may_measure = True
        for record, before in kept:
            record.clear()
            record.update(before)


def fastest_times(
    calls: Mapping[str, Callable[[], object]], seconds: float = SECONDS
) -> dict[str, float]:
    """Time each call in turn, and return the fastest time of each.

    The first round warms up. A call that is expensive and far behind is not repeated.

    Args:
        calls: name -> call, which returns when its work is done.
        seconds: time after which no further round begins.

    Returns:
        Name -> seconds.
    """
    best = dict.fromkeys(calls, math.inf)
    end = math.inf
    for _ in range(1 + ROUNDS):
        lead = min(best.values())
        for name, call in calls.items():
            if 4 * lead < best[name] < math.inf and best[name] > 0.1:
                continue
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
        now = time.perf_counter()
        if end == math.inf:
            end = now + seconds
        elif now > end:
            break
    return best


def apart(call: Callable[[], T]) -> T:
    """Call in a thread of its own, which no mode of the caller's thread reaches.

    Inference mode, autocast and fake tensors would change what is timed.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def device_name(device: str) -> str:
    """Name a device: the GPU, or the processor and the instructions that torch uses."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    limits = (f', {name}={os.environ[name]}' for name in LIMITS if os.environ.get(name))
    capability = torch.backends.cpu.get_cpu_capability()
    return f'{processor()} with {capability}{"".join(limits)}'


def machine(device: str) -> str:
    """Name what times depend on: the device, threads and the version of torch."""
    threads = f', {torch.get_num_threads()} threads' if device == 'cpu' else ''
    return f'{device_name(device)}{threads}, torch {torch.__version__}'


@functools.cache
def processor() -> str:
    """Name the processor; with family and model, which virtual machines' names lack."""
    info = Path('/proc/cpuinfo')
    with contextlib.suppress(OSError):
        text = info.read_text()
        keys = ('model name', r'cpu family', 'model')
        found = (re.search(rf'^{key}\s*:\s*(.+)', text, re.MULTILINE) for key in keys)
        if words := [match[1].strip() for match in found if match]:
            return ' '.join(words)
    return platform.processor() or platform.machine()


def cache_file() -> Path:
    """Return the path of the file of choices, whether or not it exists."""
    folder = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(folder, 'illama_seg', 'measured.json')


@functools.cache
def _stored() -> dict[str, dict]:
    """Read the file: machine -> key -> choice; what is damaged counts as nothing."""
    try:
        content = json.loads(cache_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, dict)}


def _store(place: str, key: str, entry: dict) -> None:
    """Add a choice to the file as it is now; other processes write it too."""
    _stored.cache_clear()
    content = dict(_stored())
    content[place] = content.get(place, {}) | {key: entry}
    path = cache_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix='.json')
        with os.fdopen(handle, 'w') as file:
            json.dump(content, file, indent=1)
        os.replace(name, path)
