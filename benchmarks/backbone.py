"""The whole Base backbone against the authors' arithmetic and timm's ViT-B.

    python benchmarks/backbone.py [--device cpu|cuda] [--sizes 224 512] [--out DIR]

'reference' is iLLaMA by the eager formula, 'exact' the same numbers by the fast
path, 'strict' ordinary causal attention, 'timm' vit_base_patch16_224 at the same
image size. Interleaved; medians with their range. 'share' is the achieved part of
the rate of one large square matrix product, measured in the same run and dtype.
Prints a table, writes backbone.json into DIR.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import timm
import torch

from illama_seg.backbones import ILLaMA

MODELS = ['reference', 'exact', 'strict', 'timm']
# image size: batch size on a CPU and on a GPU
BATCHES = {224: (4, 64), 512: (1, 8), 1024: (1, 2)}


def build(name: str, size: int, device: str) -> torch.nn.Module:
    if name == 'timm':
        model = timm.create_model('vit_base_patch16_224', img_size=size, num_classes=0)
        return model.to(device)
    model = ILLaMA(
        arch='base',
        img_size=size,
        out_indices=(3, 5, 7, 11),
        attn_mask='strict' if name == 'strict' else 'soft',
    )
    for block in model.blocks:
        block.attn.impl = 'reference' if name == 'reference' else 'auto'
    return model.to(device)


def run(name: str, model, image, training: bool, autocast) -> None:
    with autocast(), nullcontext() if training else torch.inference_mode():
        # Every model the same: the transformer's blocks, no pooling, no head.
        out = model.forward_features(image) if name == 'timm' else model(image)[-1]
    if training:
        out.float().sum().backward()
        model.zero_grad(set_to_none=True)


def timed(call, device: str) -> float:
    if device == 'cuda':
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a square product, the best of a few."""
    n = 8192 if device == 'cuda' else 2048
    a, b = torch.randn(2, n, n, device=device).to(dtype).unbind(0)
    best = min(timed(partial(torch.mm, a, b), device) for _ in range(6))
    return 2 * n**3 / best


def operations(size: int, batch: int, training: bool) -> float:
    """Of a ViT-B's products, 2 a multiply-accumulate, all attention weights counted.

    iLLaMA-B's are the same but for its gate; one count for all keeps shares
    comparable as times are. A backward pass is two forward ones.
    """
    width, depth, n = 768, 12, (size // 16) ** 2 + 1
    block = 2 * n * 12 * width**2 + 4 * n**2 * width
    return batch * (depth * block + 2 * n * width**2) * (3 if training else 1)


def measure(args: argparse.Namespace, size: int, dtype: torch.dtype) -> list[dict]:
    device, rows = args.device, []
    batch = BATCHES[size][device == 'cuda']
    image = torch.randn(batch, 3, size, size, device=device)
    autocast = (
        partial(torch.autocast, device, dtype)
        if dtype != torch.float32
        else nullcontext
    )
    models = {name: build(name, size, device) for name in args.models}
    for training in (False, True):
        for model in models.values():
            model.train(training)
        calls = {
            name: partial(run, name, model, image, training, autocast)
            for name, model in models.items()
        }
        for call in calls.values():
            call()
        times: dict = {name: [] for name in calls}
        rates = []
        for _ in range(args.repeats):
            rates.append(matmul_rate(device, dtype))
            for name, call in calls.items():
                times[name].append(timed(call, device))
        medians = {name: statistics.median(t) for name, t in times.items()}
        for name, seconds in medians.items():
            floor = operations(size, batch, training) / max(rates)
            rows.append(
                {
                    'name': name,
                    'size': size,
                    'batch': batch,
                    'dtype': str(dtype).removeprefix('torch.'),
                    'direction': 'forward+backward' if training else 'inference',
                    'seconds': seconds,
                    'min': min(times[name]),
                    'max': max(times[name]),
                    'share': floor / seconds,
                    'matmul_flops': max(rates),
                    'speedup_over_reference': medians['reference'] / seconds
                    if 'reference' in medians
                    else None,
                    'time_over_timm': seconds / medians['timm']
                    if 'timm' in medians
                    else None,
                }
            )
            print(format_row(rows[-1]), flush=True)
    return rows


def format_row(row: dict) -> str:
    def ratio(key: str) -> str:
        return '      -' if row[key] is None else f'{row[key]:7.2f}'

    return (
        f'{row["size"]:5} x{row["batch"]:<3} {row["dtype"]:9} {row["direction"]:17}'
        f'{row["name"]:10}{row["seconds"]:9.4f} s ({row["min"]:.4f} to '
        f'{row["max"]:.4f}) {ratio("speedup_over_reference")}'
        f'{ratio("time_over_timm")} {row["share"]:6.0%}'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--sizes', type=int, nargs='+', default=list(BATCHES))
    parser.add_argument('--models', nargs='+', default=MODELS, choices=MODELS)
    parser.add_argument('--dtypes', nargs='+', default=['float32', 'bfloat16'])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print('size, batch, dtype, pass, model, median (range), times the reference,')
    print("share of timm's time, share of the matrix products' rate")
    rows = []
    for size in args.sizes:
        for dtype in args.dtypes:
            rows += measure(args, size, getattr(torch, dtype))
    cuda = torch.cuda.get_device_name() if args.device == 'cuda' else None
    record = {
        'device': cuda or platform.processor() or platform.machine(),
        'threads': args.threads,
        'torch': torch.__version__,
        'timm': timm.__version__,
        'rows': rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'backbone.json').write_text(json.dumps(record, indent=1))


if __name__ == '__main__':
    main()
