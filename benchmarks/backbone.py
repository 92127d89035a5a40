"""The whole backbone against the eager formula and timm's ViT.

    python benchmarks/backbone.py [--device cpu|cuda] [--sizes 224 512] [--out DIR]

'formula' is iLLaMA by the eager formula with its N x N matrices, the authors'
arithmetic; 'exact' the same numbers by the fast path; 'strict' ordinary causal
attention; 'timm' vit_base_patch16_224 at the same image size, without head. Batches,
dtypes and passes are timed in turn; medians with their range. 'share' is the achieved
part of the rate of one large square matrix product, by the faster of torch's two
libraries, measured between them in the same dtype. Memory is what a pass adds to the
parameters at its peak, in a new process on a CPU; that of the Tiny size at 1024 comes
last.

Prints a table, writes backbone.json and backbone.png into DIR.
"""

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import timm
import torch
from common import (
    DTYPES,
    PASSES,
    dtypes,
    interleaved,
    matmul_rate,
    peak,
    peak_in_new_process,
    summary,
    write,
)

from illama_seg.backbones import ILLaMA

MODELS = ['formula', 'exact', 'strict', 'timm']
# image size: batch size on a CPU and on a GPU
BATCHES = {224: (4, 64), 512: (1, 8), 1024: (1, 2)}
# Training by the formula keeps 12 blocks' N x N matrices: 30 GB at this size.
LARGEST_FORMULA_TRAINING = 512


def build(name: str, size: int, device: str, arch: str = 'base') -> torch.nn.Module:
    if name == 'timm':
        model = timm.create_model(
            f'vit_{arch}_patch16_224', img_size=size, num_classes=0
        )
        return model.to(device)
    mask = 'strict' if name == 'strict' else 'soft'
    model = ILLaMA(arch=arch, img_size=size, attn_mask=mask)
    for block in model.blocks:
        block.attn.impl = 'reference' if name == 'formula' else 'auto'
    return model.to(device)


def run(name: str, model, image, training: bool, dtype: str) -> None:
    if dtype == 'float32':
        precision = nullcontext()
    else:
        precision = torch.autocast(image.device.type, DTYPES[dtype])
    with precision, nullcontext() if training else torch.inference_mode():
        # Every model the same: the transformer's blocks, no pooling, no head.
        out = model.forward_features(image) if name == 'timm' else model(image)[-1]
    if training:
        out.float().sum().backward()
        model.zero_grad(set_to_none=True)


def operations(name: str, size: int, training: bool) -> float:
    """FLOPs of an image's matrix products in Base, 2 per multiply-accumulate.

    The attention's products are counted in full for the formula and timm's ViT, by
    three quarters for the exact path at rate 0 and by half for the strict mask; a
    backward pass is two forward ones. iLLaMA's gated feed-forward of 8/3 of the width
    has the products of the ViT's.
    """
    width, depth, n = 768, 12, (size // 16) ** 2 + 1
    part = {'exact': 0.75, 'strict': 0.5}.get(name, 1.0)
    block = 2 * n * 12 * width**2 + part * 4 * n**2 * width
    return (depth * block + 2 * n * width**2) * (3 if training else 1)


def measure_case(arch, name, size, batch, dtype, direction) -> float:
    training = direction == 'training'
    model = build(name, int(size), 'cpu', arch).train(training)
    image = torch.randn(int(batch), 3, int(size), int(size))
    run(name, model, image[:, :, :32, :32] if name != 'timm' else image, False, dtype)
    return peak(partial(run, name, model, image, training, dtype), 'cpu')


def memory(args, arch: str, name: str, size: int, dtype: str, direction: str, call):
    if args.device == 'cuda':
        return peak(call, 'cuda')
    batch = BATCHES[size][0]
    case = [arch, name, size, batch, dtype, direction]
    return peak_in_new_process(__file__, case, args.threads)


def measure(args: argparse.Namespace, size: int, dtype: str) -> list[dict]:
    device, rows = args.device, []
    batch = BATCHES[size][device == 'cuda']
    image = torch.randn(batch, 3, size, size, device=device)
    models = {name: build(name, size, device) for name in MODELS}
    for direction in args.passes:
        training = direction == 'training'
        calls = {
            name: partial(run, name, model.train(training), image, training, dtype)
            for name, model in models.items()
            if not training or name != 'formula' or size <= LARGEST_FORMULA_TRAINING
        }
        rates = [matmul_rate(device, DTYPES[dtype])]
        # Calls at the largest size take half a minute each.
        repeats = min(3, args.repeats) if size > 512 else args.repeats
        times = interleaved(calls, device, repeats)
        rates.append(matmul_rate(device, DTYPES[dtype]))
        medians = {name: summary(t)['seconds'] for name, t in times.items()}
        for name, call in calls.items():
            floor = batch * operations(name, size, training) / max(rates)
            row = {
                'name': name,
                'size': size,
                'tokens': (size // 16) ** 2 + 1,
                'batch': batch,
                'dtype': dtype,
                'pass': direction,
                **summary(times[name]),
                'share': floor / medians[name],
                'matmul_flops': max(rates),
                'MiB': memory(args, 'base', name, size, dtype, direction, call),
                'times_formula': medians.get('formula', 0) / medians[name] or None,
                'over_timm': medians[name] / medians['timm'],
            }
            rows.append(row)
            print(format_row(row), flush=True)
    return rows


def format_row(row: dict) -> str:
    faster = row['times_formula']
    return (
        f'{row["size"]:5} x{row["batch"]:<3}{row["dtype"]:9} {row["pass"]:10}'
        f'{row["name"]:8}{row["seconds"]:8.3f} s ({row["min"]:.3f} to '
        f'{row["max"]:.3f}) {f"{faster:7.2f}" if faster else "      -"} '
        f'{row["over_timm"]:7.2f} {row["share"]:7.0%} {row["MiB"] or 0:8.0f}'
    )


def measure_tiny_memory(args: argparse.Namespace) -> list[dict]:
    """Peak memory of Tiny, 1024, float32, forward and backward: where N x N hurts."""
    rows = []
    for name in MODELS:
        call = None
        if args.device == 'cuda':
            model = build(name, 1024, 'cuda', 'tiny')
            image = torch.randn(BATCHES[1024][1], 3, 1024, 1024, device='cuda')
            call = partial(run, name, model, image, True, 'float32')
        rows.append(
            {
                'name': name,
                'MiB': memory(args, 'tiny', name, 1024, 'float32', 'training', call),
            }
        )
    of = {row['name']: row['MiB'] for row in rows}
    for row in rows:
        print(
            f'Tiny, 1024, float32, training: {row["name"]:8}{row["MiB"]:8.0f} MiB, '
            f'{row["MiB"] / of["formula"]:.3f} of the formula, '
            f'{row["MiB"] / of["timm"]:.2f} of timm'
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument(
        '--sizes', type=int, nargs='+', default=list(BATCHES), choices=list(BATCHES)
    )
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='else float32, and half if faster'
    )
    parser.add_argument('--passes', nargs='+', default=PASSES, choices=PASSES)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--case', nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    args.dtypes = args.dtypes or dtypes(args.device)
    print('size, batch, dtype, pass, model, median (range), times faster than the')
    print("formula, time over timm's, share of the matrix products' rate, peak MiB")
    rows = []
    for size in args.sizes:
        for dtype in args.dtypes:
            rows += measure(args, size, dtype)
    tiny = measure_tiny_memory(args) if 1024 in args.sizes else []
    write(
        args.out,
        'backbone',
        rows,
        device=args.device,
        threads=args.threads,
        tiny_memory=tiny,
    )


if __name__ == '__main__':
    main()
