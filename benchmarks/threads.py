"""Wait policies of threads: a training alone, beside a busy process, beside another.

    python benchmarks/threads.py [--policies NAME ...] [--limit 2.5] [--out DIR]

Times iterations of the demo's training (configs/upernet_illama_demo.py, random images)
in new processes, for each policy in turn: OpenMP's default, where threads spin for
milliseconds; some spins; one thread. 'tools' is what this package sets before torch is
loaded (illama_seg/machine/threads.py): threads that sleep at once. Prints a table and
writes threads.json. Ends with status 1 if two trainings of 'tools' side by side, from
their start to their end, take more than --limit times one of them alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs' / 'upernet_illama_demo.py'
VARIABLES = (
    'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'OMP_NUM_THREADS', 'KMP_BLOCKTIME',
    'KMP_LIBRARY',
)  # fmt: skip
POLICIES = {
    'tools': {},
    'default': {'KMP_BLOCKTIME': '200'},  # libomp's own: ours leaves what is set
    '100 spins': {'GOMP_SPINCOUNT': '100'},
    '1000 spins': {'GOMP_SPINCOUNT': '1000'},
    '10000 spins': {'GOMP_SPINCOUNT': '10000'},
    'one thread': {'OMP_NUM_THREADS': '1'},
}
CONDITIONS = ('alone', 'busy', 'two')
SPIN = 'while True: pass'


def train(iterations: int) -> list[float]:
    """Seconds of each iteration of the demo's training, in this process."""
    import illama_seg  # before torch  # noqa: F401, I001
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, init_default_scope
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from illama_seg.apis import load_config

    cfg = load_config(CONFIG)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    size, count = cfg.model.data_preprocessor.size, cfg.train_dataloader.batch_size
    samples = []
    for _ in range(count):
        sample = SegDataSample(metainfo=dict(img_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.randint(15, (1, *size)))
        samples.append(sample)
    images = list(torch.randint(256, (count, 3, *size), dtype=torch.uint8))
    seconds = []
    for _ in range(iterations + 3):
        start = time.perf_counter()
        model.train_step(dict(inputs=images, data_samples=samples), wrapper)
        seconds.append(time.perf_counter() - start)
    return seconds[3:]


def start(policy: str, iterations: int) -> subprocess.Popen:
    """A new process that trains under a policy."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES}
    return subprocess.Popen(
        [sys.executable, __file__, '--child', str(iterations)],
        env=environment | POLICIES[policy],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def seconds_of(child: subprocess.Popen) -> float:
    output, _ = child.communicate()
    if child.returncode:
        sys.exit(f'error: a training ended with status {child.returncode}')
    return statistics.median(json.loads(output.splitlines()[-1]))


def measure(policy: str, condition: str, iterations: int) -> dict[str, float]:
    """Median seconds of an iteration, and of the whole; of two, the slower one's."""
    neighbour = None
    if condition == 'busy':
        neighbour = subprocess.Popen([sys.executable, '-c', SPIN])
    began = time.perf_counter()
    try:
        children = [start(policy, iterations) for _ in range(1 + (condition == 'two'))]
        iteration = max(seconds_of(child) for child in children)
    finally:
        if neighbour:
            neighbour.kill()
    return dict(iteration=iteration, whole=time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--policies', nargs='+', choices=POLICIES, default=list(POLICIES)
    )
    parser.add_argument(
        '--conditions', nargs='+', choices=CONDITIONS, default=CONDITIONS
    )
    parser.add_argument('--iterations', type=int, default=40, help='timed in each run')
    parser.add_argument('--limit', type=float, default=2.5, help="two of 'tools'")
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmarks'))
    parser.add_argument('--child', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(train(args.child)))
        return
    rows: dict[str, dict[str, dict]] = {name: {} for name in args.policies}
    print('seconds of an iteration:', *args.conditions, sep='  ')
    for condition in args.conditions:
        for policy in args.policies:
            rows[policy][condition] = measure(policy, condition, args.iterations)
    for policy, row in rows.items():
        print(f'{policy:12}', *(f'{value["iteration"]:8.3f}' for value in row.values()))
    from common import machine

    record = machine('cpu', os.cpu_count() or 1) | dict(
        policies={name: POLICIES[name] for name in rows}, seconds=rows
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'threads.json').write_text(json.dumps(record, indent=1))
    ours = rows.get('tools', {})
    if 'two' in ours and 'alone' in ours:
        ratio, iteration = (
            ours['two'][key] / ours['alone'][key] for key in ('whole', 'iteration')
        )
        print(
            f'two trainings side by side take {ratio:.2f} times one alone, an '
            f'iteration of theirs {iteration:.2f} times'
        )
        if ratio > args.limit:
            sys.exit(f'error: expected at most {args.limit} times')


if __name__ == '__main__':
    main()
