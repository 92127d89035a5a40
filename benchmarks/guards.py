"""Cost of the guards of a long run: in a training iteration, and in a checkpoint.

    python benchmarks/guards.py [--dtypes float32] [--out DIR] [--quick]

iLLaMA-T's ImageNet recipe, as benchmarks/pretrain.py trains it. Blocks of iterations on
one batch alternate with blocks without the guards: seeds of the iteration, check of the
loss, names of the files, signals, and the hooks that do it. Checkpoints that are
checked, flushed and renamed alternate with mmengine's own. Seeds of images alternate
with reading as many. Differences and ratios are medians over the pairs.

'guards' is the extra time over an iteration's. It is a difference of two that vary by
more than itself, so the time inside the guards is taken too: 'inside' is its share of
the iteration, of every iteration in further blocks, where the seeding, the hooks and
what they watch are timed. On a GPU it has the wait for the loss in it, which the device
computes through, and is an upper bound. 'checkpoint' the extra time of one, over
an iteration's times the iterations of the recipe's interval (an epoch); 'images' the
time to seed an image over that to read it, which loader workers spend.

Prints a table, writes guards.json into DIR.
"""

import argparse
import json
import statistics
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import torch
from common import DTYPES, dtypes, machine
from interleaving import DEVICE, synchronise
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop
from pretrain import recipe

from illama_seg.apis import build_trainer
from illama_seg.engine import FiniteLossHook, InterruptionHook, ResumeHook
from illama_seg.engine.long_runs import loops
from illama_seg.engine.long_runs.checkpoint import SafeCheckpointHook
from illama_seg.engine.long_runs.seeding import seed_sample

GUARDS = FiniteLossHook, InterruptionHook, ResumeHook
EPOCH_IMAGES = 1_281_167 // 4096 * 4096  # of the recipe: whole updates


class Measured(Exception):
    """The end of the training, once everything is measured."""


class OnAndOff(Hook):
    """In the first iteration, measure.

    `pairs` has name -> [(with, without), ...]; `inside` the seconds in the guards, and
    all seconds, of each block.
    """

    priority = 'LOWEST'

    def __init__(self, iterations: int, repeats: int, images: int) -> None:
        self.iterations, self.repeats, self.images = iterations, repeats, images
        self.pairs: dict[str, list[tuple[float, float]]] = {}
        self.inside: list[tuple[float, float]] = []
        self._running = False

    def after_train_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        if self._running:
            return
        self._running = True
        loop, dataset = runner.train_loop, runner.train_dataloader.dataset
        (hook,) = [h for h in runner.hooks if isinstance(h, SafeCheckpointHook)]
        meta = dict(epoch=0, iter=1)

        def guarded():
            for index in range(self.iterations):
                loop.run_iter(index, data_batch)
            synchronise()

        def bare():
            with without_guards(runner):
                for index in range(self.iterations):
                    EpochBasedTrainLoop.run_iter(loop, index, data_batch)
                synchronise()

        def seed():
            for index in range(self.images):
                seed_sample(0, 0, index)

        def read():
            for index in range(self.images):
                dataset.dataset[index]

        def whole():
            hook._save_checkpoint_with_step(runner, 1, dict(meta))

        def plain():
            hook.before_save_checkpoint = lambda *_, **__: None
            CheckpointHook._save_checkpoint_with_step(hook, runner, 1, dict(meta))
            del hook.before_save_checkpoint

        for name, pair in dict(
            guards=(guarded, bare), images=(seed, read), checkpoint=(whole, plain)
        ).items():
            for call in pair:
                call()  # warm
            self.pairs[name] = []
            for repeat in range(self.repeats):
                # Each of a pair is as often the first.
                order = pair if repeat % 2 else pair[::-1]
                seconds = {call: timed(call) for call in order}
                self.pairs[name].append((seconds[pair[0]], seconds[pair[1]]))
        with timed_guards(runner) as spent:
            for _ in range(self.repeats):
                spent.clear()
                whole_block = timed(guarded)
                self.inside.append((sum(spent), whole_block))
        raise Measured


@contextmanager
def timed_guards(runner):
    """Seconds of each call of a guard that is not inside another's."""
    spent, depth = [], 0

    def watched(call):
        def wrapper(*args, **kwargs):
            nonlocal depth
            depth += 1
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                depth -= 1
                if not depth:
                    spent.append(time.perf_counter() - start)

        return wrapper

    hooks = [hook for hook in runner.hooks if isinstance(hook, GUARDS)]
    # What the hooks put elsewhere, the backward pass and the step, calls these two.
    names = ('before_train_iter', 'after_train_iter', '_watch', '_check')
    seed = loops.seed_iteration
    loops.seed_iteration = watched(seed)
    for hook in hooks:
        for name in filter(partial(hasattr, hook), names):
            setattr(hook, name, watched(getattr(hook, name)))
    try:
        yield spent
    finally:
        loops.seed_iteration = seed
        for hook in hooks:
            for name in names:
                vars(hook).pop(name, None)


@contextmanager
def without_guards(runner):
    """Hooks and watched functions as they are without the guards."""
    hooks, wrapper = runner._hooks, runner.optim_wrapper
    watched = wrapper.__dict__.pop('backward')
    checks = wrapper.optimizer._optimizer_step_pre_hooks
    kept = dict(checks)
    checks.clear()
    runner._hooks = [hook for hook in hooks if not isinstance(hook, GUARDS)]
    try:
        yield
    finally:
        runner._hooks, wrapper.backward = hooks, watched
        checks.update(kept)


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(args: argparse.Namespace, dtype: str) -> dict:
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        # The schedule goes on through all that is measured.
        length = 2 * (args.repeats + 1) * args.iterations + 10
        cfg = recipe(args.size, args.batch, length, folder)
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
        cfg.default_hooks.logger.interval = 10**9
        runner = build_trainer(cfg, amp=dtype == 'bfloat16')
        pairs = OnAndOff(args.iterations, args.repeats, args.images)
        runner.register_hook(pairs)
        with suppress(Measured):
            runner.train()
        size = Path(folder, 'epoch_1.pth').stat().st_size
    extra = {
        name: statistics.median(a - b for a, b in found)
        for name, found in pairs.pairs.items()
    }
    without = {
        name: statistics.median(b for _, b in found)
        for name, found in pairs.pairs.items()
    }
    step = without['guards'] / args.iterations
    shares = [spent / whole for spent, whole in pairs.inside]
    row = dict(
        dtype=dtype,
        size=args.size,
        batch=args.batch,
        step_seconds=step,
        guards=extra['guards'] / without['guards'],
        guards_range=ranged(a / b - 1 for a, b in pairs.pairs['guards']),
        inside=statistics.median(shares),
        inside_range=ranged(shares),
        inside_seconds=statistics.median(
            spent / args.iterations for spent, _ in pairs.inside
        ),
        images=statistics.median(a / b for a, b in pairs.pairs['images']),
        image_seconds=without['images'] / args.images,
        checkpoint_MiB=size / 2**20,
        checkpoint_seconds=without['checkpoint'] + extra['checkpoint'],
        mmengine_checkpoint_seconds=without['checkpoint'],
        interval=EPOCH_IMAGES // args.batch,
        checkpoint=extra['checkpoint'] / (EPOCH_IMAGES // args.batch) / step,
        pairs=pairs.pairs,
    )
    print(
        f'{args.size} x{args.batch} {dtype}: {step:.4g} s to an iteration\n'
        f'  guards      {row["guards"]:+8.3%} of it '
        f'({row["guards_range"][0]:+.3%} to {row["guards_range"][1]:+.3%})\n'
        f'  inside      {row["inside"]:+8.3%} of it '
        f'({row["inside_range"][0]:+.3%} to {row["inside_range"][1]:+.3%}), '
        f'{1e3 * row["inside_seconds"]:.3g} ms\n'
        f'  images      {row["images"]:+8.3%} of {1e3 * row["image_seconds"]:.3g} ms '
        'to read one\n'
        f'  checkpoint  {row["checkpoint"]:+8.3%} of an iteration, spread over '
        f'{row["interval"]:,}: {row["checkpoint_seconds"]:.3g} s for '
        f'{row["checkpoint_MiB"]:.0f} MiB, mmengine '
        f'{row["mmengine_checkpoint_seconds"]:.3g} s',
        flush=True,
    )
    return row


def ranged(values) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=224)
    parser.add_argument('--batch', type=int, default=128 if DEVICE == 'cuda' else 16)
    parser.add_argument(
        '--dtypes', nargs='+', choices=DTYPES, help='else float32, and half if faster'
    )
    parser.add_argument('--iterations', type=int, default=8, help='of a block')
    parser.add_argument('--images', type=int, default=64, help='of a block')
    parser.add_argument('--repeats', type=int, default=11, help='pairs of blocks')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument(
        '--quick', action='store_true', help='tiny, to see that it runs'
    )
    args = parser.parse_args()
    if args.quick:
        args.size, args.batch, args.dtypes = 32, 8, ['float32']
        args.iterations, args.images, args.repeats = 2, 8, 2
    torch.set_num_threads(args.threads)
    args.dtypes = args.dtypes or dtypes(DEVICE)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = [measure(args, dtype) for dtype in args.dtypes]
    record = {**machine(DEVICE, args.threads), 'rows': rows}
    (args.out / 'guards.json').write_text(json.dumps(record, indent=1))
    print(f'written: {args.out / "guards.json"}')


if __name__ == '__main__':
    main()
