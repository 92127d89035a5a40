"""Train many micro runs side by side and keep their curves."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import re
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch
from joblib import Parallel, delayed
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm

from illama_seg.apis.training import build_trainer

# What a finished run must agree in, not to be repeated.
SETTINGS = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'custom_hooks',
)


def train_runs(
    runs: dict[str, Config],
    seeds: Iterable[int],
    out: str | Path,
    num_workers: int | None = None,
) -> dict[str, list[dict]]:
    """Train every run with every seed; what an earlier call finished is not repeated.

    Each run takes one thread, in a process beside the others. The records do not depend
    on how many there are.

    Args:
        runs: of :func:`illama_seg.studies.ablations.roadmap.roadmap_runs`.
        seeds: of the initialisation and of the order of the images.
        out: folder; a run's curves stand in ``runs/{name}/{seed}/record.json`` there.
        num_workers: processes; by default one for each core, 1 for this process alone.

    Returns:
        Name -> for each seed a dict. For each epoch: ``accuracy`` in percent, at the
        soft mask's rate of the moment; ``causal_accuracy``, the same at rate 0;
        ``loss`` and ``soft_mask_rate``, means of its iterations. ``loss_curve`` has
        finer steps: pairs of the epoch, as a fraction, and the loss.

    Raises:
        ValueError: if a run fails by a mistake in its settings; names it. Those that
            were finished are kept, those under way are stopped.
        RuntimeError: if it fails otherwise.
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
    # As it is: mmengine warns where it has to change it.
    cfg.env_cfg.mp_cfg.mp_start_method = multiprocessing.get_start_method()
    threads = torch.get_num_threads()
    # Matrices this small gain nothing from a second thread.
    torch.set_num_threads(1)
    try:
        return name, seed, _record(cfg)
    except Exception as error:
        mistake = isinstance(error, (ValueError, OSError))
        raise (ValueError if mistake else RuntimeError)(
            f'{name}, seed {seed}: {"" if mistake else type(error).__name__ + ": "}'
            f'{error}\nFinished runs are kept: the same command goes on from there'
        ) from error
    finally:
        torch.set_num_threads(threads)


def _record(cfg: Config) -> dict:
    path = Path(cfg.work_dir) / 'record.json'
    settings = json.loads(json.dumps({key: cfg[key] for key in SETTINGS}))
    if path.is_file():
        record = json.loads(path.read_text())
        if record['settings'] == settings:
            return record
    runner = build_trainer(cfg)
    causal = _CausalAccuracy()
    runner.register_hook(causal)
    runner.train()
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    record = {
        'settings': settings,
        **_curves(scalars, len(runner.train_dataloader)),
        'causal_accuracy': causal.values,
    }
    # Whole or not there: another run's failure may end this one at any moment.
    path.with_suffix('.tmp').write_text(json.dumps(record))
    os.replace(path.with_suffix('.tmp'), path)
    return record


class _CausalAccuracy(Hook):
    """The accuracy of each validation, without what the soft mask lets through."""

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


def _curves(scalars: Path, epoch_length: int) -> dict:
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    accuracy = [line['accuracy/top1'] for line in lines if 'accuracy/top1' in line]
    train = [line for line in lines if 'loss' in line]
    by_epoch: dict[int, list[dict]] = {}
    for line in train:
        by_epoch.setdefault(line['epoch'], []).append(line)
    means = {
        key: [
            statistics.fmean(line.get(key, 0.0) for line in group)
            for group in by_epoch.values()
        ]
        for key in ('loss', 'soft_mask_rate')
    }
    curve = [[line['step'] / epoch_length, line['loss']] for line in train]
    return {'accuracy': accuracy, **means, 'loss_curve': curve}
