"""Trainings of a leaderboard: one process and one thread each, resumed where left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from illama_seg.errors import UserError

POLL = 0.5  # seconds
PATIENCE = 60  # seconds that a run has to save what it has
KEPT = 'Finished runs are kept: the same command goes on from there'


@dataclass(frozen=True)
class Run:
    """A training of one config with one seed.

    Attributes:
        name: of the config.
        config: file that all seeds share.
        seed: of initialisation and order of the images.
        folder: work dir.
        length: number of iterations.
    """

    name: str
    config: Path
    seed: int
    folder: Path
    length: int

    @property
    def is_finished(self) -> bool:
        """Return True if its last checkpoint was evaluated."""
        return (self.folder / 'test' / 'scores.json').is_file()

    def step(self) -> int:
        """Return the number of iterations that its log has."""
        if self.is_finished:
            return self.length
        logs = sorted(self.folder.glob('*/vis_data/scalars.json'))
        for path in reversed(logs):
            for line in reversed(_end_of(path)):
                try:
                    row = json.loads(line)
                except ValueError:  # half written
                    continue
                if 'loss' in row:
                    return int(row.get('step', 0))
        return 0

    def start(self, slot: int, num_devices: int) -> subprocess.Popen:
        """Start it in a process of its own, with its output in ``run.log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ, OMP_NUM_THREADS='1')
        if num_devices:
            environment['CUDA_VISIBLE_DEVICES'] = str(slot % num_devices)
        arguments = [str(self.config), str(self.seed), str(self.folder)]
        with open(self.folder / 'run.log', 'ab') as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    '-m',
                    'illama_seg.studies.leaderboard.one',
                    *arguments,
                ],
                stdout=log,
                stderr=log,
                env=environment,
            )


def train_missing(runs: Sequence[Run], workers: int | None = None) -> None:
    """Train and evaluate the runs that are not finished, some at a time.

    Args:
        runs: to be finished.
        workers: processes; by default one for each GPU, without one for each core.

    Raises:
        UserError: if a run fails; it names its log. The others are stopped, and go on
            with the next call.
    """
    num_devices = torch.cuda.device_count()
    slots = list(range(workers or num_devices or os.cpu_count() or 1))
    waiting = [run for run in runs if not run.is_finished]
    running: dict[int, tuple[Run, subprocess.Popen]] = {}
    total = sum(run.length for run in runs)
    progress = tqdm(total=total, desc='training', unit='iteration', smoothing=0.05)
    progress.n = progress.initial = sum(run.step() for run in runs)
    try:
        while waiting or running:
            for slot in slots:
                if waiting and slot not in running:
                    run = waiting.pop(0)
                    running[slot] = run, run.start(slot, num_devices)
            time.sleep(POLL)
            for slot, (run, process) in list(running.items()):
                if process.poll() is not None:
                    del running[slot]
                    _check(run)
            names = ', '.join(f'{run.name} {run.seed}' for run, _ in running.values())
            progress.set_postfix_str(names, refresh=False)
            if (step := sum(run.step() for run in runs)) > progress.n:
                progress.update(step - progress.n)
    finally:
        progress.close()
        for _, process in running.values():
            process.terminate()  # it saves, and ends
        for _, process in running.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _check(run: Run) -> None:
    """Raise the error that a run has ended with.

    Raises:
        UserError: with the end of its log.
    """
    if run.is_finished:
        return
    lines = [line for line in _end_of(run.folder / 'run.log') if line.strip()]
    error = [i for i, line in enumerate(lines) if line.startswith('error: ')]
    shown = '\n'.join(lines[error[-1] :] if error else lines[-3:])
    log = run.folder / 'run.log'
    raise UserError(f'{run.name}, seed {run.seed}: {shown}\nSee {log}. {KEPT}')


def _end_of(path: Path, size: int = 8192) -> list[str]:
    """Return the last lines of a file."""
    with open(path, 'rb') as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors='replace').splitlines()
