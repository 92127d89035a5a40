"""The whole training step against the bare loop of forward, backward and update.

Over 300 lines: both sides, their parts and their memory are one table.

    python benchmarks/pretrain.py [--dtypes float32] [--out DIR] [--quick]

'step' is iLLaMA-T's ImageNet recipe as tools/train.py runs it, on handwritten digits
enlarged to the recipe's size: data loading by worker processes, RandAugment, erasing,
Mixup, hooks, a log line in every block of iterations. 'bare' is the same model in the
same process, batch and dtype, on fixed tensors with a plain AdamW. A pause in the
training, once the workers are idle, is where the bare loop is timed, block after block;
ratios are medians over the pairs. Iterations that live on batches loaded in a pause are
not counted. Both update the parameters in every iteration, at soft mask rate 0.

'floor' is the ratio that is left when nothing but the workers' processor time is added
to the bare loop's. 'data' is the wait for a batch, 'rest' forward and backward pass. On
a GPU, which is used where there is one, only whole blocks wait for the device, so the
parts are the host's time.

Memory is what training adds at its peak to the model just built, in a process of its
own: two iterations of the step, of the bare loop, and of the step with attention by
the eager formula with its N x N matrices.

Prints a table, writes pretrain.json and pretrain.png into DIR.
"""

import argparse
import os
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from common import DTYPES, dtypes, peak, peak_in_new_process, summary, write
from interleaving import DEVICE, NUM_WORKERS, PARTS, SKIPPED, BareLoop, SideBySide
from mmengine.config import Config

from illama_seg.apis import build_trainer, load_config

RECIPE = Path(__file__).parents[1] / 'configs/pretrain/illama_tiny_in1k.py'
NUM_CLASSES = 10
# image size: batch size on a CPU and on a GPU, even for Mixup
MEMORY_BATCHES = {512: (4, 32), 1024: (2, 8)}
MEMORY_OF = ('bare', 'step', 'formula')
MEMORY_ITERATIONS = 2  # the second has the optimiser's moments beside it all


def recipe(size: int, batch: int, iterations: int, out: str) -> Config:
    """The recipe as it stands, but for data, size, batch and length: one epoch."""
    cfg = load_config(RECIPE, work_dir=out)
    for loader, split in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'test'),
    ):
        pipeline = loader.dataset.pipeline
        pipeline[1].input_size = size
        loader.update(batch_size=batch, num_workers=NUM_WORKERS)
        loader.dataset = dict(
            type='DigitsDataset',
            split=split,
            pipeline=pipeline,
            test_mode=split == 'test',
        )
    digits = dict(cfg.train_dataloader.dataset, indices=batch)
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=iterations, dataset=digits
    )
    cfg.effective_batch = batch
    cfg.model.backbone.img_size = size
    cfg.model.head.num_classes = NUM_CLASSES
    cfg.param_scheduler[0].warmup = 0
    cfg.train_cfg.max_epochs = 1
    cfg.custom_hooks[0].cutoff = 0
    # By names of their own, or mmengine gives every run the first one's.
    cfg.visualizer.pop('name')
    cfg.experiment_name = f'benchmark {out}'
    cfg.log_level = 'ERROR'
    return cfg


def measure(args: argparse.Namespace, dtype: str) -> list[dict]:
    """Rows of step and bare loop; the first has the ratios and the pauses."""
    block = SKIPPED + args.iterations
    with tempfile.TemporaryDirectory() as folder:
        # The workers must not have come to the end while the last block is timed.
        length = args.repeats * block + SKIPPED
        cfg = recipe(args.size, args.batch, length, folder)
        cfg.default_hooks.logger.interval = block
        runner = build_trainer(cfg, amp=dtype == 'bfloat16')
        case = args.size, args.batch, dtype
        pairs = SideBySide(*case, args.iterations, args.repeats)
        runner.register_hook(pairs)
        runner.train()
        checkpoint = Path(runner.work_dir, 'epoch_1.pth').stat().st_size
    images = args.batch * args.iterations * args.repeats
    ratios = [s / b for s, b in zip(*pairs.seconds.values(), strict=True)]
    processor = {k: v / images for k, v in pairs.processor.items()}
    bare = statistics.median(pairs.seconds['bare'])
    rows = []
    for name, seconds in pairs.seconds.items():
        parts = {
            key: statistics.median(block[key] for block in pairs.parts[name])
            for key in PARTS
        }
        row = {
            'name': name,
            'size': args.size,
            'tokens': (args.size // 16) ** 2 + 1,
            'batch': args.batch,
            'dtype': dtype,
            'pass': 'training',
            **summary(seconds),
            'images_per_second': args.batch / statistics.median(seconds),
            'processor_seconds_per_image': processor[name],
            'parts': parts,
        }
        rows.append(row)
    workers = processor['workers']
    rows[0].update(
        over_bare=statistics.median(ratios),
        over_bare_range=(min(ratios), max(ratios)),
        worker_seconds_per_image=workers,
        floor=floor(bare / args.batch, workers, args.threads),
        pauses={**pairs.pauses, 'checkpoint_MiB': checkpoint / 2**20},
    )
    for row in rows:
        print(format_row(row), flush=True)
    return rows


def floor(bare: float, workers: float, threads: int) -> float:
    """Least ratio to the bare loop, from both one's seconds for an image."""
    cores = len(os.sched_getaffinity(0))
    if DEVICE == 'cuda':
        return max(1.0, workers / min(NUM_WORKERS, cores) / bare)
    return max(1.0, (threads * bare + workers) / (cores * bare))


def format_row(row: dict) -> str:
    parts = ', '.join(f'{k} {1e3 * v:.1f}' for k, v in row['parts'].items() if v)
    text = (
        f'{row["size"]:5} x{row["batch"]:<3}{row["dtype"]:9} {row["name"]:5}'
        f'{row["seconds"]:8.3f} s ({row["min"]:.3f} to {row["max"]:.3f}) '
        f'{row["images_per_second"]:7.1f} images/s; ms: {parts}; processor '
        f'{1e3 * row["processor_seconds_per_image"]:.1f} ms an image'
    )
    if row['name'] == 'bare':
        return text
    pauses, (low, high) = row['pauses'], row['over_bare_range']
    return (
        f'{text}, workers {1e3 * row["worker_seconds_per_image"]:.1f} ms\n'
        f'      over bare {row["over_bare"]:.3f} ({low:.3f} to {high:.3f}), floor '
        f'{row["floor"]:.3f}\n'
        f'      a log line {1e3 * pauses["log_line"]:.1f} ms, a checkpoint of '
        f'{pauses["checkpoint_MiB"]:.0f} MiB {pauses["checkpoint"]:.2f} s, evaluation '
        f'of {pauses["evaluation_images"]} images {pauses["evaluation"]:.2f} s (bare '
        f'inference {pauses["bare_inference"]:.2f} s)'
    )


def measure_case(name: str, size: str, batch: str, dtype: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        cfg = recipe(int(size), int(batch), MEMORY_ITERATIONS, folder)
        cfg.default_hooks.checkpoint = None
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        runner = build_trainer(cfg, amp=dtype == 'bfloat16')
        for block in runner.model.backbone.blocks:
            block.attn.impl = 'reference' if name == 'formula' else 'auto'
        if name != 'bare':
            return peak(runner.train, DEVICE)
        bare = BareLoop(runner.model, int(size), int(batch), dtype)
        del runner
        return peak(partial(bare.run, MEMORY_ITERATIONS), DEVICE)


def measure_memory(args: argparse.Namespace, size: int, dtype: str) -> list[dict]:
    batch = MEMORY_BATCHES.get(size, (2, 2))[DEVICE == 'cuda']
    cases = {name: [name, size, batch, dtype] for name in MEMORY_OF}
    of = {
        name: peak_in_new_process(__file__, case, args.threads)
        for name, case in cases.items()
    }
    rows = []
    for name, memory in of.items():
        row = {
            'name': name,
            'size': size,
            'tokens': (size // 16) ** 2 + 1,
            'batch': batch,
            'dtype': dtype,
            'pass': 'training',
            'MiB': memory,
            'over_bare': memory and of['bare'] and memory / of['bare'],
            'of_formula': memory and of['formula'] and memory / of['formula'],
        }
        rows.append(row)
        ratios = {'bare': row['over_bare'], 'the formula': row['of_formula']}
        print(
            f'{size:5} x{batch:<3}{dtype:9} {name:8}'
            + (f'{memory:8.0f} MiB' if memory else ' not measured')
            + ''.join(
                f', {ratio:.2f} of {of}' for of, ratio in ratios.items() if ratio
            ),
            flush=True,
        )
    return rows


def draw(rows: list[dict], path: Path, title: str) -> None:
    """Where the time of an iteration goes, and the peak memory by tokens."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.5), constrained_layout=True
    )
    timings = [row for row in rows if 'parts' in row][::-1]
    labels = [f'{row["name"]}, {row["dtype"]}' for row in timings]
    bare = {row['dtype']: row['seconds'] for row in timings if row['name'] == 'bare'}
    start = [0.0] * len(timings)
    for part in PARTS:
        widths = [row['parts'][part] / bare[row['dtype']] for row in timings]
        left.barh(labels, widths, left=start, label=part)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    left.axvline(1.1, color='black', linestyle=':', label='target')
    left.set_xlabel("time of an iteration, over the bare loop's")
    left.legend(loc='upper center', bbox_to_anchor=(0.5, -0.15), ncol=3)
    memories = [row for row in rows if row.get('MiB')]
    for name in MEMORY_OF:
        for dtype, style in zip(DTYPES, ('-', '--'), strict=True):
            points = [
                (row['tokens'], row['MiB'] / row['batch'])
                for row in memories
                if (row['name'], row['dtype']) == (name, dtype)
            ]
            if points:
                right.loglog(
                    *zip(*points, strict=True),
                    style,
                    marker='o',
                    color=f'C{MEMORY_OF.index(name)}',
                    label=f'{name}, {dtype}',
                )
    ticks = sorted({row['tokens'] for row in memories})
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(ScalarFormatter())
    right.minorticks_off()
    right.set_xlabel('tokens')
    right.set_ylabel('peak memory per image, MiB')
    right.grid(True, which='both', alpha=0.25)
    if memories:
        right.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--batch', type=int, default=128 if DEVICE == 'cuda' else 16)
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='else float32, and half if faster'
    )
    parser.add_argument('--iterations', type=int, default=8, help='of a block')
    parser.add_argument('--repeats', type=int, default=5, help='blocks')
    parser.add_argument(
        '--memory-sizes', type=int, nargs='*', default=list(MEMORY_BATCHES)
    )
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument(
        '--quick', action='store_true', help='tiny, to see that it runs'
    )
    parser.add_argument('--case', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch % 2 or not 2 <= args.batch <= 1000:
        parser.error(f'--batch {args.batch}: Mixup takes an even number, 2 to 1000')
    if min(args.iterations, args.repeats) < 1:
        parser.error('--iterations and --repeats: expected at least 1')
    if args.quick:
        args.size, args.batch, args.memory_sizes = 32, 40, [32]
        args.iterations, args.repeats, args.dtypes = 2, 2, ['float32']
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    args.dtypes = args.dtypes or dtypes(DEVICE)
    rows = []
    for dtype in args.dtypes:
        rows += measure(args, dtype)
    for size in args.memory_sizes:
        rows += measure_memory(args, size, args.dtypes[0])
    more = {'workers': NUM_WORKERS, 'cores': len(os.sched_getaffinity(0))}
    write(
        args.out,
        'pretrain',
        rows,
        device=DEVICE,
        threads=args.threads,
        draw=draw,
        **more,
    )


if __name__ == '__main__':
    main()
