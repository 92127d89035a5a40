"""The whole training step against the bare loop of forward, backward and update.

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
own: three iterations of the step, of the bare loop, and of the step with attention by
the eager formula with its N x N matrices.

Prints a table, writes pretrain.json and pretrain.png into DIR.
"""

import argparse
import copy
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import DTYPES, peak, peak_in_new_process, summary, timed, write
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from illama_seg.apis import build_trainer, load_config

RECIPE = Path(__file__).parents[1] / 'configs/pretrain/illama_tiny_in1k.py'
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
NUM_WORKERS, PREFETCHED = 2, 2  # batches a worker loads ahead: torch's default
SKIPPED = NUM_WORKERS * PREFETCHED
NUM_CLASSES = 10
PARTS = ('rest', 'optimiser', 'preprocess', 'data', 'hooks')
# image size: batch size on a CPU and on a GPU
MEMORY_BATCHES = {512: (4, 32), 1024: (1, 8)}
MEMORY_OF = ('bare', 'step', 'formula')
MEMORY_ITERATIONS = 3


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


class BareLoop:
    """A training iteration and nothing else, of a copy of the model."""

    def __init__(self, model, size: int, batch: int, dtype: str) -> None:
        self.model = copy.deepcopy(model).train()
        self.optimiser = torch.optim.AdamW(self.model.parameters(), weight_decay=0.05)
        self.images = torch.randn(batch, 3, size, size, device=DEVICE)
        self.labels = torch.randint(NUM_CLASSES, (batch,), device=DEVICE)
        self.precision = (
            nullcontext()
            if dtype == 'float32'
            else torch.autocast(DEVICE, DTYPES[dtype])
        )

    def step(self) -> None:
        with self.precision:
            logits = self.model.head(self.model.backbone(self.images))
        loss = F.cross_entropy(logits.float(), self.labels, label_smoothing=0.1)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def infer(self) -> None:
        """In float32, as mmengine evaluates during training whatever the dtype."""
        with torch.no_grad():
            self.model.head(self.model.backbone(self.images))

    def run(self, iterations: int) -> None:
        for _ in range(iterations):
            self.step()


class SideBySide(Hook):
    """Time blocks of the training it is registered in, and of the bare loop after each.

    Attributes:
        seconds: of an iteration in each block, by 'step' and 'bare'.
        parts: likewise, the seconds of each of PARTS.
        processor: seconds of this process and of the workers in all blocks.
        pauses: seconds of a log line, a checkpoint, the evaluation and bare inference
            of as many batches.
    """

    priority = 'LOWEST'

    def __init__(
        self, size: int, batch: int, dtype: str, iterations: int, repeats: int
    ) -> None:
        self.case = size, batch, dtype
        self.iterations, self.repeats = iterations, repeats
        self.seconds: dict[str, list[float]] = {'step': [], 'bare': []}
        self.parts: dict[str, list[dict]] = {'step': [], 'bare': []}
        self.processor: Counter = Counter()
        self.pauses: dict[str, float] = {}
        self._spent: Counter = Counter()
        self._log_lines: list[float] = []

    def before_train(self, runner: Runner) -> None:
        self.bare = BareLoop(runner.model, *self.case)
        self.bare.run(2)  # warm
        watch(self.bare.optimiser, 'step', self._spent, 'optimiser')
        watch(runner.optim_wrapper.optimizer, 'step', self._spent, 'optimiser')
        watch(runner.model.data_preprocessor, 'forward', self._spent, 'preprocess')
        watch(runner.val_loop, 'run', self._spent, 'evaluation')
        for hook in runner.hooks:
            name = type(hook).__name__
            if hook is not self:
                watch(hook, 'before_train_iter', self._spent, name)
                watch(hook, 'after_train_iter', self._spent, name)
            if name == 'CheckpointHook':
                watch(hook, 'after_train_epoch', self._spent, 'checkpoint')
                watch(hook, 'after_val_epoch', self._spent, 'best_checkpoint')
        self._hooks = {type(hook).__name__ for hook in runner.hooks}
        for handler in (runner.logger, *runner.logger.handlers):
            handler.setLevel(logging.INFO)  # lines are written, as in a training

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._spent['data'] += runner.message_hub.get_scalar(
            'train/data_time'
        ).current()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        place = (batch_idx + 1) % (SKIPPED + self.iterations)
        if len(self.seconds['step']) == self.repeats:
            return
        if place == SKIPPED:
            synchronise()
            self._spent.clear()
            self._processor = processor_seconds()
            self._start = time.perf_counter()
        elif place == 0:
            synchronise()
            self._end_block('step', time.perf_counter() - self._start)
            self._log_lines.append(self._spent['LoggerHook'])
            for name, seconds in processor_seconds().items():
                self.processor[name] += seconds - self._processor[name]
            self._time_bare()

    def _time_bare(self) -> None:
        wait_for_idle_workers()
        self._spent.clear()
        before = time.process_time()
        seconds = timed(partial(self.bare.run, self.iterations), DEVICE)
        self._end_block('bare', seconds)
        self.processor['bare'] += time.process_time() - before
        self._spent.clear()

    def _end_block(self, name: str, seconds: float) -> None:
        spent = {key: value / self.iterations for key, value in self._spent.items()}
        parts = {key: spent.get(key, 0.0) for key in PARTS}
        parts['hooks'] = sum(spent.get(key, 0.0) for key in self._hooks)
        parts['rest'] = seconds / self.iterations - sum(parts.values())
        self.seconds[name].append(seconds / self.iterations)
        self.parts[name].append(parts)

    def after_train(self, runner: Runner) -> None:
        loader = runner.val_loop.dataloader
        bare = timed(lambda: [self.bare.infer() for _ in loader.batch_sampler], DEVICE)
        self.pauses = {
            'log_line': statistics.median(self._log_lines),
            'checkpoint': self._spent['checkpoint'],
            'evaluation': self._spent['evaluation'] - self._spent['best_checkpoint'],
            'evaluation_images': len(loader.dataset),
            'bare_inference': bare,
        }


def watch(owner, method: str, spent: Counter, name: str) -> None:
    """Add the seconds of every call of the method to ``spent[name]``."""
    original = getattr(owner, method)

    def watched(*args, **kwargs):
        start = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - start

    setattr(owner, method, watched)


def synchronise() -> None:
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def processor_seconds() -> dict[str, float]:
    """Processor time of this process and of its workers, so far."""
    return {'step': time.process_time(), 'workers': _workers_seconds()}


def _workers_seconds() -> float:
    ticks = 0
    for worker in multiprocessing.active_children():
        fields = Path(f'/proc/{worker.pid}/stat').read_text().rpartition(')')[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user and system
    return ticks / os.sysconf('SC_CLK_TCK')


def wait_for_idle_workers() -> None:
    before = -1.0
    while (now := _workers_seconds()) != before:
        before = now
        time.sleep(0.2)


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
        print(
            f'{size:5} x{batch:<3}{dtype:9} {name:8}{memory or 0:8.0f} MiB, '
            f'{row["over_bare"] or 0:.2f} of bare, '
            f'{row["of_formula"] or 0:.3f} of the formula',
            flush=True,
        )
    return rows


def draw(rows: list[dict], path: Path, title: str) -> None:
    """Where the time of an iteration goes, and the peak memory by tokens."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.5), constrained_layout=True
    )
    timings = [row for row in rows if 'parts' in row][::-1]
    labels = [f'{row["name"]}, {row["dtype"]}' for row in timings]
    start = [0.0] * len(timings)
    for part in PARTS:
        widths = [row['parts'][part] for row in timings]
        left.barh(labels, widths, left=start, label=part)
        start = [a + b for a, b in zip(start, widths, strict=True)]
    left.set_xlabel('seconds of an iteration')
    left.legend()
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
    parser.add_argument('--dtypes', nargs='+', default=list(DTYPES), choices=DTYPES)
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
        args.size, args.batch, args.memory_sizes = 32, 10, [32]
        args.iterations, args.repeats, args.dtypes = 2, 2, ['float32']
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.case:
        print(measure_case(*args.case))
        return
    rows = []
    for dtype in args.dtypes:
        rows += measure(args, dtype)
    for size in args.memory_sizes:
        rows += measure_memory(args, size, args.dtypes[0])
    more = {'workers': NUM_WORKERS, 'cores': len(os.sched_getaffinity(0))}
    write(args.out, 'pretrain', rows, DEVICE, args.threads, draw=draw, **more)


if __name__ == '__main__':
    main()
