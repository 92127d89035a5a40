"""The attention by itself: implementations side by side and interleaved.

    python benchmarks/attention.py [--device cpu|cuda] [--out DIR] [--quick]

Prints a table, writes attention.json and attention.png into DIR. 'sdpa' is torch's
bidirectional attention, 'strict' its causal one (Eq. 1); the others are the soft mask
at rate 0 by implementation, 'reference' being the formula. The line 'auto' names the
implementation that 'auto' takes, and its time over that of the fastest one. Memory is
what a call adds at its peak: the allocator's on CUDA, on the CPU the resident set of a
new process.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import (
    DTYPES,
    PASSES,
    dtypes,
    interleaved,
    peak,
    peak_in_new_process,
    summary,
    write,
)

from illama_seg.layers.attention import causal_attention, soft_causal_attention
from illama_seg.layers.attention_dispatch import (
    automatic_implementation,
    available_implementations,
)

NUM_HEADS, HEAD_DIM = 12, 64
# tokens: batch size on a CPU and on a GPU
BATCHES = {197: (8, 64), 1025: (1, 8), 4097: (1, 4)}


def candidates(device: str, dtype: torch.dtype) -> dict:
    names = available_implementations(device, dtype, HEAD_DIM)
    soft = {
        n: partial(soft_causal_attention, soft_mask_rate=0.0, impl=n) for n in names
    }
    return {'sdpa': F.scaled_dot_product_attention, 'strict': causal_attention, **soft}


def make_inputs(batch: int, tokens: int, device: str, dtype: torch.dtype):
    """Views of a fused projection, as in the model, and an output gradient."""
    shape = (batch, tokens, 3, NUM_HEADS, HEAD_DIM)
    qkv = torch.randn(shape, device=device).to(dtype)
    grad = torch.randn_like(qkv[:, :, 0]).transpose(1, 2)
    return qkv.requires_grad_(), grad


def run(function, qkv, grad, training: bool) -> None:
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if training:
        torch.autograd.grad(function(q, k, v), qkv, grad)
    else:
        with torch.no_grad():
            function(q, k, v)


def measure_case(name: str, tokens: str, batch: str, dtype: str, direction: str):
    function, training = candidates('cpu', DTYPES[dtype])[name], direction == 'training'
    small = make_inputs(1, 8, 'cpu', DTYPES[dtype])
    run(function, *small, training)  # loads libraries and starts threads
    inputs = make_inputs(int(batch), int(tokens), 'cpu', DTYPES[dtype])
    return peak(partial(run, function, *inputs, training), 'cpu')


def measure(args: argparse.Namespace) -> list[dict]:
    rows, measured = [], dtypes(args.device)
    for tokens, batches in BATCHES.items():
        if args.quick and tokens > 1025:
            continue
        batch = batches[args.device == 'cuda']
        for dtype in measured:
            functions = candidates(args.device, DTYPES[dtype])
            inputs = make_inputs(batch, tokens, args.device, DTYPES[dtype])
            for direction in PASSES:
                calls = {
                    name: partial(run, f, *inputs, direction == 'training')
                    for name, f in functions.items()
                }
                repeats = 3 if args.quick or tokens > 1025 else 7
                times = interleaved(calls, args.device, repeats)
                for name, call in calls.items():
                    case = [name, tokens, batch, dtype, direction]
                    if args.device == 'cuda':
                        memory = peak(call, 'cuda')
                    else:
                        memory = peak_in_new_process(__file__, case, args.threads)
                    row = dict(
                        zip(
                            ('name', 'tokens', 'batch', 'dtype', 'pass'),
                            case,
                            strict=True,
                        ),
                        **summary(times[name]),
                        MiB=memory,
                    )
                    rows.append(row)
                    print(
                        f'{tokens:5} x{batch:<3} {dtype:9} {direction:10} {name:10}'
                        f'{row["seconds"] * 1e3:9.2f} ms ({row["min"] * 1e3:.2f} to '
                        f'{row["max"] * 1e3:.2f}){memory or 0:9.1f} MiB',
                        flush=True,
                    )
                auto = automatic_choice(
                    args.device, dtype, tokens, batch, direction, times
                )
                rows[-1]['auto'] = auto
                print(
                    f'{tokens:5} x{batch:<3} {dtype:9} {direction:10} auto: '
                    f'{auto["name"]}, {auto["ratio"]:.2f} of the fastest time',
                    flush=True,
                )
    return rows


def automatic_choice(
    device: str, dtype: str, tokens: int, batch: int, direction: str, times: dict
) -> dict:
    """Name what 'auto' takes, with its median time over that of the fastest."""
    name = automatic_implementation(
        device,
        DTYPES[dtype],
        HEAD_DIM,
        num_tokens=tokens,
        num_heads=batch * NUM_HEADS,
        training=direction == 'training',
    ).name
    medians = {
        key: summary(seconds)['seconds']
        for key, seconds in times.items()
        if key not in ('sdpa', 'strict')
    }
    return dict(name=name, ratio=medians[name] / min(medians.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--quick', action='store_true', help='few repeats, <= 1025')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--case', nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    write(
        args.out, 'attention', measure(args), device=args.device, threads=args.threads
    )


if __name__ == '__main__':
    main()
