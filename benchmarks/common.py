"""Interleaved timing, peak memory, plot and record of the benchmarks."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch

from illama_seg.layers.linear_layer import by_convolution
from illama_seg.machine.choices import device_name
from illama_seg.machine.precision import choose_precision

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}
PASSES = ('inference', 'training')


def dtypes(device: str) -> list[str]:
    """Names of DTYPES that a user would take: bfloat16 only where it is faster."""
    chosen = choose_precision(device)
    print(f'{device_name(device)}; precision: {chosen.reason}', flush=True)
    return list(dict.fromkeys(['float32', chosen.name]))


def timed(call: Callable, device: str) -> float:
    """Seconds of one call."""
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a square product, the best of a few.

    On a CPU of a 1x1 convolution too: another library may compute it.
    """
    n = 8192 if device == 'cuda' else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype).unbind(0)
    calls = [partial(torch.mm, a, b)]
    if device == 'cpu':
        calls.append(partial(by_convolution, a, b))
    best = min(timed(call, device) for _ in range(6) for call in calls)
    return 2 * n**3 / best


def interleaved(calls: dict[str, Callable], device: str, repeats: int) -> dict:
    """Name -> seconds of each repeat; every repeat times all of them in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call, device))
    return times


def summary(times: list[float]) -> dict:
    return {
        'seconds': statistics.median(times),
        'min': min(times),
        'max': max(times),
    }


def peak(call: Callable, device: str) -> float:
    """MiB that a call adds at its peak: the allocator's on CUDA, else resident."""
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    before = _resident_peak()
    call()
    return _resident_peak() - before


def _resident_peak() -> float:
    """Not getrusage: its maximum starts at the parent's, so it hides small growth."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def peak_in_new_process(script: str, case: list, threads: int) -> float | None:
    """Output of `script --case ...`; None where the machine's memory is too small.

    On a CPU only a new process tells: what an earlier call freed stays resident. There
    the allocator gives back at once what is freed, or its reserves would be counted.
    """
    command = [sys.executable, script, '--threads', str(threads), '--case']
    at_once = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536'}
    done = subprocess.run(
        [*command, *map(str, case)],
        env={**os.environ, **at_once},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [''])[-1]
        # Below 0: ended by that signal, 9 where the machine had no memory left.
        text = f'ended by signal {-done.returncode}' if done.returncode < 0 else last
        print(f'{" ".join(map(str, case))}: {text}', file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def plot(rows: list[dict], path: Path, title: str) -> None:
    """Time and peak memory per image against tokens, a column for dtype and pass."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    measured = {(row['pass'], row['dtype']) for row in rows}
    columns = [(p, d) for p in PASSES for d in DTYPES if (p, d) in measured]
    figure, axes = plt.subplots(
        2,
        len(columns),
        figsize=(1 + 4 * len(columns), 7.5),
        sharex=True,
        squeeze=False,
        constrained_layout=True,
    )
    names = list(dict.fromkeys(row['name'] for row in rows))
    for column, (direction, dtype) in enumerate(columns):
        for key, axis in zip(('seconds', 'MiB'), axes[:, column], strict=True):
            for number, name in enumerate(names):
                points = [
                    (row['tokens'], row[key] / row['batch'])
                    for row in rows
                    if (row['name'], row['pass'], row['dtype'])
                    == (name, direction, dtype)
                    and row.get(key)
                ]
                if points:
                    axis.loglog(
                        *zip(*points, strict=True),
                        marker='o',
                        color=f'C{number}',
                        label=name,
                    )
            axis.grid(True, which='both', alpha=0.25)
        axes[0, column].set_title(f'{direction}, {dtype}')
        axes[1, column].set_xlabel('tokens')
    ticks = sorted({row['tokens'] for row in rows})
    axes[0, 0].set_xticks(ticks, [str(tick) for tick in ticks])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylabel('seconds per image')
    axes[1, 0].set_ylabel('peak memory per image, MiB')
    axes[0, 0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def machine(device: str, threads: int) -> dict:
    return {
        'machine': device_name(device),
        'threads': threads,
        'torch': torch.__version__,
        'timm': timm.__version__,
        'python': platform.python_version(),
    }


def write(
    out: Path,
    name: str,
    rows: list[dict],
    *,
    device: str,
    threads: int,
    draw: Callable = plot,
    **more,
) -> None:
    """NAME.json and NAME.png."""
    out.mkdir(parents=True, exist_ok=True)
    record = {**machine(device, threads), 'rows': rows, **more}
    (out / f'{name}.json').write_text(json.dumps(record, indent=1))
    where = f'{record["machine"]}, {threads} threads, torch {record["torch"]}'
    draw(rows, out / f'{name}.png', f'{name}: {where}')
    print(f'written: {out / name}.json, {out / name}.png')
