"""Kill trainings with SIGKILL at random moments, resume them, compare the weights.

    python tests/faults/kill_and_resume.py [--runs 20] [--kills 2] [--out DIR]

Every run is killed that many times, at a random moment of a random iteration, and ends
with --resume. Weights, averaged weights, optimiser and schedules of its last checkpoint
are compared, bit for bit, with an undisturbed run's. Runs alternate between
segmentation (by iterations) and classification (by epochs, resumed in the middle of
one), and between 0 and 2 loader workers; the undisturbed ones have none. Prints a table
and writes kill_and_resume.json; exits with 1 where a run differs.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch  # noqa: E402
from tiny_long_runs import (  # noqa: E402
    KINDS,
    LENGTH,
    Progress,
    config,
    differing,
    ended,
    in_child,
    newest,
    train,
    wait_for,
)
from tiny_run import make_ade20k  # noqa: E402


def run_in_child(kind, data, work_dir, workers, resume):
    def function(pipe):
        cfg = config(kind, data, work_dir, workers)
        train(cfg, resume=resume, hooks=[Progress(pipe)])

    return in_child(function, work_dir / 'output.txt')


def killed_and_resumed(kind, data, work_dir, workers, kills, rng):
    """Iterations begun before each kill, of one at least; the run is complete then."""
    work_dir.mkdir(parents=True)
    places, left = [], kills
    while True:
        started = time.monotonic()
        pid, pipe = run_in_child(kind, data, work_dir, workers, resume=bool(places))
        begun = rng.randint(1, LENGTH) if left else LENGTH + 1
        if left and wait_for(pipe, begun):
            # Anywhere in the iteration, in the checkpoint and in the next one.
            time.sleep(rng.uniform(0, 0.3))
            os.kill(pid, signal.SIGKILL)
            left -= 1
        code = ended(pid)
        os.close(pipe)
        if code == 0 and kills and not places:  # it was faster: all over again
            shutil.rmtree(work_dir)
            work_dir.mkdir()
            left = kills
            continue
        if code == 0:
            return places
        if code != -signal.SIGKILL:
            raise RuntimeError((work_dir / 'output.txt').read_text()[-3000:])
        places.append(dict(begun=begun, seconds=round(time.monotonic() - started, 2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=20)
    parser.add_argument('--kills', type=int, default=2, help='of each run')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/faults'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = make_ade20k(folder / 'ade20k')
        references = {}
        for kind in KINDS:
            work_dir = folder / kind
            killed_and_resumed(kind, data, work_dir, 0, 0, rng)
            references[kind] = newest(work_dir)
        for number in range(args.runs):
            kind, workers = KINDS[number % 2], (0, 2)[number // 2 % 2]
            work_dir = folder / f'run_{number}'
            kills = killed_and_resumed(kind, data, work_dir, workers, args.kills, rng)
            names = differing(references[kind], newest(work_dir))
            row = dict(kind=kind, workers=workers, kills=kills, differing=names)
            rows.append(row)
            print(
                f'{number:3} {kind:15} {workers} workers, killed in iteration '
                f'{", ".join(str(kill["begun"]) for kill in kills) or "-":8} '
                f'{"DIFFERS: " + names[0] if names else "identical"}',
                flush=True,
            )
    same = sum(not row['differing'] for row in rows)
    args.out.mkdir(parents=True, exist_ok=True)
    record = dict(identical=same, runs=len(rows), torch=torch.__version__, rows=rows)
    (args.out / 'kill_and_resume.json').write_text(json.dumps(record, indent=1))
    print(f'{same} of {len(rows)} runs end with identical weights')
    sys.exit(same < len(rows))


if __name__ == '__main__':
    main()
