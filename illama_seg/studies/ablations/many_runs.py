"""Training of many micro runs in parallel, with their curves."""

import copy
import json
import multiprocessing
import re
import statistics
from collections.abc import Iterable
from functools import reduce
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from illama_seg.apis.training import build_trainer
from illama_seg.errors import UserError
from illama_seg.files import atomic
from illama_seg.visualization.curves import read_scalars

KEPT = 'Finished runs are kept: the same command continues from there'
# A finished run is repeated, or refused, where one of these differs.
SETTINGS = (
    'model', 'effective_batch', 'custom_hooks', 'param_scheduler', 'randomness.seed',
    'train_dataloader.dataset', 'val_dataloader.dataset', 'optim_wrapper.optimizer',
    'train_cfg.max_epochs',
)  # fmt: skip


def settings_of(cfg: Config) -> dict[str, Any]:
    """Return the ``SETTINGS`` of a config as JSON has them, None where it has none."""
    content = json.loads(json.dumps(cfg.to_dict()))
    return {
        key: reduce(lambda part, name: (part or {}).get(name), key.split('.'), content)
        for key in SETTINGS
    }


def train_runs(
    runs: dict[str, Config],
    seeds: Iterable[int],
    out: str | Path,
    num_workers: int | None = None,
) -> dict[str, list[dict]]:
    """Train every run with every seed, except those that an earlier call finished.

    Each run has one thread of its own. The records do not depend on the number of
    processes.

    Args:
        runs: configs by name, from ``roadmap.roadmap_runs``.
        seeds: seeds of the initialisation and of the order of the images.
        out: folder; a run's curves are in ``runs/{name}/{seed}/record.json``.
        num_workers: processes; by default one for each core. 1 trains in this one.

    Returns:
        Name -> a dict for each seed. It has for each epoch: ``accuracy`` in percent at
        the current rate of the soft mask; ``causal_accuracy``, the same at rate 0;
        ``loss`` and ``soft_mask_rate``, means over the iterations. ``loss_curve`` has
        pairs of the fractional epoch and the loss.

    Raises:
        UserError: if a run's settings are wrong; names it, and stops the others.
        RuntimeError: if a run fails otherwise.
    """
    seeds = list(seeds)
    tasks = []
    for seed in seeds:
        for name, source in runs.items():
            cfg = copy.deepcopy(source)
            folder = re.sub(r'\W+', '_', name).strip('_')
            cfg.randomness = dict(seed=seed)
            cfg.work_dir = str(Path(out) / 'runs' / folder / str(seed))
            cfg.experiment_name = f'roadmap {name} {seed}'
            tasks.append(delayed(_train)(name, seed, cfg))
    workers = Parallel(num_workers or -1, return_as='generator_unordered')
    progress = tqdm(workers(tasks), 'training', len(tasks), unit='run')
    records: dict[tuple[str, int], dict] = {}
    for name, seed, record in progress:
        records[name, seed] = record
        progress.set_postfix_str(f'{name}, seed {seed}')
    return {name: [records[name, seed] for seed in seeds] for name in runs}


def _train(name: str, seed: int, cfg: Config) -> tuple[str, int, dict]:
    # The current method: mmengine warns where it has to change it.
    cfg.env_cfg.mp_cfg.mp_start_method = multiprocessing.get_start_method()
    threads = torch.get_num_threads()
    # Matrices this small gain nothing from a second thread.
    torch.set_num_threads(1)
    try:
        return name, seed, _record(cfg)
    except Exception as error:
        known = isinstance(error, (UserError, OSError))
        reason = error if known else f'{type(error).__name__}: {error}'
        kind = UserError if known else RuntimeError
        raise kind(f'{name}, seed {seed}: {reason}\n{KEPT}') from error
    finally:
        torch.set_num_threads(threads)


def _record(cfg: Config) -> dict:
    path, settings = Path(cfg.work_dir) / 'record.json', settings_of(cfg)
    if path.is_file():
        record = json.loads(path.read_text())
        if record['settings'] == settings:
            return record
    runner, causal = build_trainer(cfg), _CausalAccuracy()
    runner.register_hook(causal)
    runner.train()
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    curves = _curves(scalars, len(runner.train_dataloader))
    record = dict(settings=settings, **curves, causal_accuracy=causal.values)
    # The failure of another run may end this one at any moment.
    with atomic(path) as part:
        part.write_text(json.dumps(record))
    return record


class _CausalAccuracy(Hook):
    """Accuracy of each validation with a soft mask rate of 0."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        backbone = runner.model.backbone
        rate = backbone.soft_mask_rate
        if rate:
            backbone.set_soft_mask_rate(0.0)
            loop = runner.val_loop
            for batch in loop.dataloader:
                with torch.no_grad():
                    outputs = runner.model.val_step(batch)
                loop.evaluator.process(data_samples=outputs, data_batch=batch)
            metrics = loop.evaluator.evaluate(len(loop.dataloader.dataset))
            backbone.set_soft_mask_rate(rate)
        self.values.append((metrics or {})['accuracy/top1'])


def _curves(scalars: Path, epoch_length: int) -> dict[str, list]:
    logged = read_scalars([scalars])
    rates: dict = dict(logged.get('soft_mask_rate', []))  # type: ignore[arg-type]
    epochs = [
        list(points)
        for _, points in groupby(
            logged['loss'], lambda point: (point[0] - 1) // epoch_length
        )
    ]
    return dict(
        accuracy=[value for _, value in logged['accuracy/top1']],
        loss=[statistics.fmean(loss for _, loss in points) for points in epochs],
        soft_mask_rate=[
            statistics.fmean(rates.get(step, 0.0) for step, _ in points)
            for points in epochs
        ],
        loss_curve=[[step / epoch_length, loss] for step, loss in logged['loss']],
    )
