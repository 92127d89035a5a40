"""Images a second by Table 6's protocol: iLLaMA beside timm's DeiT and ConvNeXt.

    python benchmarks/throughput.py [--device cpu|cuda] [--sizes 224 384]
        [--batch-sizes 1 8] [--compile off on] [--dtypes float32 bfloat16] [--out DIR]

Inference to the logits, random weights. All models, compiled or not, take turns at each
image size, batch and dtype; medians with their range. Memory is what a pass adds to the
parameters at its peak, on a CPU in a new process and not of compiled models. What does
not fit the memory, or does not compile, is said in its row. The paper timed batches of
1024 at 224 on one A100.

Prints a table, writes throughput.json and throughput.png into DIR.
"""

import argparse
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import timm
import torch
from common import (
    DTYPES,
    dtypes,
    interleaved,
    peak,
    peak_in_new_process,
    summary,
    write,
)
from matplotlib.figure import Figure

import illama_seg  # noqa: F401 (its names in timm)

# name: what timm creates, and images/s in Table 6 of arXiv 2404.06773
MODELS = {
    'illama_tiny': ('illama_tiny_patch16_224', 6958),
    'illama_small': ('illama_small_patch16_224', 3222),
    'illama_base': ('illama_base_patch16_224', 1345),
    'illama_large': ('illama_large_patch16_224', 456),
    'deit_tiny': ('deit_tiny_patch16_224', 6051),
    'deit_small': ('deit_small_patch16_224', 3080),
    'deit_base': ('deit_base_patch16_224', 1348),
    'convnext_base': ('convnext_base', None),
}
BATCHES = {'cpu': [1, 8], 'cuda': [1, 64, 1024]}


def build(name: str, size: int, device: str) -> torch.nn.Module:
    options = {} if name.startswith('convnext') else dict(img_size=size)
    return timm.create_model(MODELS[name][0], **options).eval().to(device)


def run(model, image: torch.Tensor, dtype: str) -> None:
    precision = nullcontext()
    if dtype != 'float32':
        precision = torch.autocast(image.device.type, DTYPES[dtype])
    with precision, torch.inference_mode():
        model(image)


def measure_case(name: str, size: str, batch: str, dtype: str) -> float:
    model = build(name, int(size), 'cpu')
    run(model, torch.randn(1, 3, int(size), int(size)), dtype)  # loads libraries
    image = torch.randn(int(batch), 3, int(size), int(size))
    return peak(partial(run, model, image, dtype), 'cpu')


def memory(args: argparse.Namespace, case: list, compiled: bool, call) -> float | None:
    if args.device == 'cuda':
        return peak(call, 'cuda')
    if compiled:
        return None
    return peak_in_new_process(__file__, case, args.threads)


def prepared(args: argparse.Namespace, models: dict, image, dtype: str):
    """Calls that work, warm, and why the others do not; by name and compilation."""
    calls, faults = {}, {}
    torch.compiler.reset()  # a model's code is compiled for a few shapes only
    for name, model in models.items():
        for mode in args.compile:
            key = name, mode
            ready = torch.compile(model, dynamic=False) if mode == 'on' else model
            call = partial(run, ready, image, dtype)
            try:
                call()
                calls[key] = call
            except torch.OutOfMemoryError:
                faults[key] = 'out of memory'
            except Exception as error:  # a compiler raises what it likes
                if mode == 'off':
                    raise
                faults[key] = str(error).strip().splitlines()[0]
    return calls, faults


def measure(args: argparse.Namespace, models: dict, size: int, batch: int, dtype: str):
    image = torch.randn(batch, 3, size, size, device=args.device)
    calls, faults = prepared(args, models, image, dtype)
    times = interleaved(calls, args.device, args.repeats)
    rows = []
    for key in (*calls, *faults):
        name, mode = key
        row = dict(
            name=name,
            compiled=mode == 'on',
            size=size,
            batch=batch,
            dtype=dtype,
            parameters=sum(p.numel() for p in models[name].parameters()),
            fault=faults.get(key),
        )
        if key in calls:
            row |= summary(times[key])
            row['images_per_second'] = batch / row['seconds']
            case = [name, size, batch, dtype]
            row['MiB'] = memory(args, case, mode == 'on', calls[key])
            row['paper'] = MODELS[name][1] if size == 224 else None
        rows.append(row)
    speeds = {(r['name'], r['compiled']): r.get('images_per_second') for r in rows}
    for row in rows:
        deit = speeds.get((row['name'].replace('illama', 'deit'), row['compiled']))
        if row['name'].startswith('illama') and deit and not row['fault']:
            row['of_deit'] = row['images_per_second'] / deit
        print(format_row(row), flush=True)
    return rows


def format_row(row: dict) -> str:
    what = (
        f'{row["size"]:5} x{row["batch"]:<5}{row["dtype"]:9}'
        f'{"compiled" if row["compiled"] else "":9}{row["name"]:14}'
    )
    if row['fault']:
        return what + row['fault']
    low, high = (row['batch'] / row[key] for key in ('max', 'min'))
    deit = f'{row["of_deit"]:6.2f}' if 'of_deit' in row else '     -'
    memory = f'{row["MiB"]:9.0f}' if row['MiB'] is not None else '        -'
    return (
        f'{what}{row["images_per_second"]:9.2f} ({low:.2f} to {high:.2f}) {deit}'
        f'{memory}'
    )


def draw(rows: list[dict], path: Path, title: str) -> None:
    """Images a second against the batch, a column for each size and dtype."""
    columns = list(dict.fromkeys((row['size'], row['dtype']) for row in rows))
    figure = Figure(figsize=(2 + 4 * len(columns), 5), layout='constrained')
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    lines = list(dict.fromkeys((row['name'], row['compiled']) for row in rows))
    for axes, column in zip(grid, columns, strict=True):
        for name, compiled in lines:
            points = [
                (row['batch'], row['images_per_second'])
                for row in rows
                if (row['size'], row['dtype']) == column
                and (row['name'], row['compiled']) == (name, compiled)
                and not row['fault']
            ]
            if points:
                axes.loglog(
                    *zip(*points, strict=True),
                    marker='o',
                    linestyle='--' if compiled else '-',
                    color=f'C{list(MODELS).index(name)}',
                    label=f'{name}, compiled' if compiled else name,
                )
        batches = sorted({row['batch'] for row in rows})
        axes.set_xticks(batches, map(str, batches))
        axes.minorticks_off()
        axes.grid(True, which='both', alpha=0.25)
        axes.set(title=f'{column[0]}, {column[1]}', xlabel='batch')
    grid[0].set_ylabel('images a second')
    handles = {}
    for axes in grid:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    figure.legend(handles.values(), handles, loc='outside right center', fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> None:
    here = 'cuda' if torch.cuda.is_available() else 'cpu'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default=here)
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--sizes', type=int, nargs='+', default=[224, 384])
    parser.add_argument(
        '--batch-sizes',
        type=int,
        nargs='+',
        help='else 1 and 8 on a CPU, 1, 64 and 1024 on a GPU',
    )
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='else float32, and half if faster'
    )
    parser.add_argument(
        '--compile', nargs='+', choices=['off', 'on'], default=['off', 'on']
    )
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--case', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.batch_sizes = args.batch_sizes or BATCHES[args.device]
    if min((args.repeats, args.threads, *args.sizes, *args.batch_sizes)) < 1:
        parser.error(
            '--repeats, --threads, --sizes, --batch-sizes: expected numbers from 1 on'
        )
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    args.dtypes = args.dtypes or dtypes(args.device)
    print('size, batch, dtype, model, images/s (range), of DeiT, peak MiB')
    rows = []
    for size in args.sizes:
        models = {name: build(name, size, args.device) for name in args.models}
        for batch in args.batch_sizes:
            for dtype in args.dtypes:
                rows += measure(args, models, size, batch, dtype)
    write(
        args.out,
        'throughput',
        rows,
        device=args.device,
        threads=args.threads,
        draw=draw,
    )


if __name__ == '__main__':
    main()
