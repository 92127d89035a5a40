"""Time and peak memory of every attention, side by side and interleaved.

    python benchmarks/attention.py [--device cpu|cuda] [--out DIR] [--quick]

Prints a table, writes attention.json and attention.png into DIR. 'sdpa_full' is
torch's bidirectional attention, 'sdpa_causal' its causal one (the strict mask); the
others are the soft mask at rate 0 by implementation, 'reference' being the formula.
Memory is what a call adds at its peak: the allocator's on CUDA, on the CPU the
resident set of a process of its own.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from illama_seg.layers.attention import (
    available_implementations,
    causal_attention,
    soft_causal_attention,
)

NUM_HEADS, HEAD_DIM = 12, 64
# tokens: batch size on a CPU and on a GPU
SIZES = {197: (8, 64), 1025: (1, 8), 4097: (1, 4)}
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


def candidates(device: str, dtype: torch.dtype) -> dict:
    names = available_implementations(device, dtype, HEAD_DIM)
    soft = {
        n: partial(soft_causal_attention, soft_mask_rate=0.0, impl=n) for n in names
    }
    full = F.scaled_dot_product_attention
    return {'sdpa_full': full, 'sdpa_causal': causal_attention, **soft}


def make_inputs(batch: int, tokens: int, device: str, dtype: torch.dtype):
    """Views of a fused projection, as in the model, and an output gradient."""
    shape = (batch, tokens, 3, NUM_HEADS, HEAD_DIM)
    qkv = torch.randn(shape, device=device).to(dtype)
    grad = torch.randn_like(qkv[:, :, 0]).transpose(1, 2)
    return qkv.requires_grad_(), grad


def run(function, qkv, grad, backward: bool) -> None:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if backward:
        torch.autograd.grad(function(q, k, v), qkv, grad)
    else:
        with torch.no_grad():
            function(q, k, v)


def timed(call, device: str) -> float:
    """Milliseconds."""
    if device == 'cpu':
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def cuda_peak(call) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def cpu_peak(case: list[str], threads: int) -> float:
    """The growth of a fresh process's resident set: what was freed stays counted."""
    command = [sys.executable, __file__, '--threads', str(threads), '--case', *case]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def resident_peak() -> float:
    """Not getrusage: its maximum starts at the parent's, so it hides small growth."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


def measure_case(name, tokens, batch, dtype, direction) -> float:
    function = candidates('cpu', DTYPES[dtype])[name]
    backward = direction == 'forward+backward'
    small = make_inputs(1, 8, 'cpu', DTYPES[dtype])
    run(function, *small, backward)  # loads libraries and starts threads
    inputs = make_inputs(int(batch), int(tokens), 'cpu', DTYPES[dtype])
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts again from here
    before = resident_peak()
    run(function, *inputs, backward)
    return resident_peak() - before


def measure(args: argparse.Namespace) -> list[dict]:
    rows = []
    for tokens, batches in SIZES.items():
        if args.quick and tokens > 1025:
            continue
        batch = batches[args.device == 'cuda']
        for dtype in DTYPES:
            functions = candidates(args.device, DTYPES[dtype])
            inputs = make_inputs(batch, tokens, args.device, DTYPES[dtype])
            for direction in ('forward', 'forward+backward'):
                calls = {
                    name: partial(run, f, *inputs, direction != 'forward')
                    for name, f in functions.items()
                }
                times: dict = {name: [] for name in calls}
                for call in calls.values():
                    call()
                for _ in range(3 if args.quick else args.repeats):
                    for name, call in calls.items():
                        times[name].append(timed(call, args.device))
                for name, call in calls.items():
                    case = [name, str(tokens), str(batch), dtype, direction]
                    row = {
                        'name': name,
                        'tokens': tokens,
                        'batch': batch,
                        'dtype': dtype,
                        'direction': direction,
                        'ms': statistics.median(times[name]),
                        'ms_min': min(times[name]),
                        'ms_max': max(times[name]),
                        'MiB': cuda_peak(call)
                        if args.device == 'cuda'
                        else cpu_peak(case, args.threads),
                    }
                    rows.append(row)
                    print(
                        f'{tokens:5} x{batch:<3} {dtype:9} {direction:17} {name:12}'
                        f'{row["ms"]:9.3f} ms ({row["ms_min"]:.3f} to '
                        f'{row["ms_max"]:.3f}){row["MiB"]:9.1f} MiB',
                        flush=True,
                    )
    return rows


def plot(rows: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    cases = [(t, d) for d in ('forward', 'forward+backward') for t in DTYPES]
    figure, axes = plt.subplots(2, 4, figsize=(18, 8), constrained_layout=True)
    for column, (dtype, direction) in enumerate(cases):
        chosen = [r for r in rows if (r['dtype'], r['direction']) == (dtype, direction)]
        for key, axis in zip(('ms', 'MiB'), axes[:, column], strict=True):
            for name in dict.fromkeys(r['name'] for r in chosen):
                points = [
                    # Per sample; a logarithm takes no zero.
                    (r['tokens'], max(r[key] / r['batch'], 1e-3))
                    for r in chosen
                    if r['name'] == name
                ]
                axis.loglog(*zip(*points, strict=True), marker='o', label=name)
            axis.set(title=f'{dtype}, {direction}', xlabel='tokens')
            axis.set_ylabel({'ms': 'ms per image', 'MiB': 'peak MiB per image'}[key])
            axis.grid(True, which='both', alpha=0.3)
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def describe(device: str, threads: int) -> dict:
    cuda = torch.cuda.get_device_name() if device == 'cuda' else None
    return {
        'device': cuda or platform.processor() or platform.machine(),
        'threads': threads,
        'torch': torch.__version__,
        'python': platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--quick', action='store_true', help='few repeats, <= 1025')
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--case', nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    rows = measure(args)
    args.out.mkdir(parents=True, exist_ok=True)
    record = {**describe(args.device, args.threads), 'rows': rows}
    (args.out / 'attention.json').write_text(json.dumps(record, indent=1))
    plot(rows, args.out / 'attention.png')


if __name__ == '__main__':
    main()
