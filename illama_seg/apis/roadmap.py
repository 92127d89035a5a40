"""The roadmap from ViT to iLLaMA (Table 17) in micro size, on handwritten digits."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from prettytable import PrettyTable
from tqdm import tqdm

from illama_seg.apis.roadmap_pictures import draw_roadmap, draw_schedules
from illama_seg.apis.running import build_trainer, load_config

PARTS = (
    'ffn',
    'norm',
    'attn_mask',
    'cls_position',
    'with_pos_embed',
    'with_rotary',
)
# What each config of configs/ablation is called in the table and in the picture.
STEPS = {
    '1_vit': '1 ViT',
    '2_swiglu': '2 SwiGLU',
    '3_rmsnorm': '3 RMSNorm',
    '4_causal': '4 causal',
    '5_last_cls': '5 [cls] last',
    '5b_modified_mask': '5b [cls] row open',
    '6_rope': '6 RoPE',
    '7_pos_embed': '7 + LPE',
    '8_mixing': '8 mixing',
    '9_soft_mask': '9 soft mask',
}
# The multiplied mask of Eq. 2 at rate 0, whose denominators see the future.
MULTIPLIED = {'4_causal': '4 by Eq. 2', '5_last_cls': '5 by Eq. 2'}
NO_MASK, LINEAR = 'soft mask: none', 'soft mask: linear'
SCHEDULES = {'none': NO_MASK, 'constant': STEPS['9_soft_mask'], 'linear': LINEAR}


def roadmap_runs(recipe: str | Path, ablation: str | Path) -> dict[str, Config]:
    """The roadmap's steps and the soft mask's schedules, as configs of a micro model.

    A step takes its parts, its mixing and its soft mask from ``tiny_{step}.py``, all
    else from the recipe. The soft mask ends after half of the training.

    Args:
        recipe: config of the micro model.
        ablation: folder of the steps' configs.

    Returns:
        Name -> config. Tiny's step 9 has the constant schedule; the linear one and none
        at all are two more runs.

    Raises:
        FileNotFoundError: if a config is missing.
    """
    runs: dict[str, Config] = {}
    for step, name in STEPS.items():
        source = load_config(Path(ablation) / f'tiny_{step}.py')
        runs[name] = _micro(recipe, source)
        if step in MULTIPLIED:
            runs[MULTIPLIED[step]] = _micro(recipe, source, attn_mask='soft')
    source = load_config(Path(ablation) / 'tiny_9_soft_mask.py')
    source.custom_hooks[0].mode = 'linear'
    runs[LINEAR] = _micro(recipe, source)
    source.custom_hooks = []
    runs[NO_MASK] = _micro(recipe, source)
    return runs


def _micro(recipe: str | Path, source: Config, **parts: Any) -> Config:
    cfg = load_config(recipe)
    found = source.model.backbone
    cfg.model.backbone.update({key: found[key] for key in PARTS} | parts)
    mixing = source.model.data_preprocessor
    cfg.model.data_preprocessor.update(mixup=mixing.mixup, cutmix=mixing.cutmix)
    cfg.custom_hooks = source.custom_hooks
    cfg.train_cfg.val_interval = 1
    for hook in cfg.custom_hooks:
        hook.cutoff = cfg.train_cfg.max_epochs // 2
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 5
    cfg.log_level = 'ERROR'
    # By a name of its own, or mmengine gives every run the first one's.
    cfg.visualizer.pop('name', None)
    return cfg


def train_runs(
    runs: dict[str, Config], seeds: Iterable[int], out: str | Path
) -> dict[str, list[dict]]:
    """Train every run with every seed; what an earlier call finished is not repeated.

    Args:
        runs: of :func:`roadmap_runs`.
        seeds: of the initialisation and of the order of the images.
        out: folder; a run's curves stand in ``runs/{name}/{seed}/record.json`` there.

    Returns:
        Name -> for each seed a dict: for each epoch ``accuracy`` in percent, ``loss``
        (the mean of its iterations) and ``soft_mask_rate`` (likewise).
    """
    seeds = list(seeds)
    pairs = [(name, seed) for seed in seeds for name in runs]
    records: dict[str, list[dict]] = {name: [] for name in runs}
    progress = tqdm(pairs, desc='training', unit='run')
    for name, seed in progress:
        progress.set_postfix_str(f'{name}, seed {seed}')
        folder = Path(out) / 'runs' / re.sub(r'\W+', '_', name).strip('_') / str(seed)
        cfg = runs[name].copy()
        cfg.randomness = dict(seed=seed)
        cfg.work_dir = str(folder)
        cfg.experiment_name = f'roadmap {name} {seed}'
        records[name].append(_train(cfg, folder / 'record.json'))
    return records


def _train(cfg: Config, path: Path) -> dict:
    settings = {key: cfg[key] for key in ('model', 'train_cfg', 'custom_hooks')}
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        record = json.loads(path.read_text())
        if record['settings'] == settings:
            return record
    runner = build_trainer(cfg)
    runner.train()
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    record = {'settings': settings, **_curves(scalars)}
    path.write_text(json.dumps(record))
    return record


def _curves(scalars: Path) -> dict:
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
    return {'accuracy': accuracy, **means}


def summarise(records: dict[str, list[dict]]) -> dict[str, dict]:
    """Last accuracy and training loss by run: seeds, mean, standard deviation."""
    summary: dict[str, dict] = {}
    for name, seeds in records.items():
        summary[name] = {}
        for key in ('accuracy', 'loss'):
            values = [record[key][-1] for record in seeds]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[name][key] = dict(
                mean=statistics.fmean(values), std=spread, seeds=values
            )
    return summary


def table_of(summary: dict[str, dict]) -> str:
    """The summary as text."""
    table = PrettyTable(['step', 'accuracy, %', 'train loss'], align='r')
    table.align['step'] = 'l'
    for name, row in summary.items():
        table.add_row(
            [name]
            + [
                f'{row[key]["mean"]:.{digits}f} ± {row[key]["std"]:.{digits}f}'
                for key, digits in (('accuracy', 1), ('loss', 3))
            ]
        )
    return str(table)


def run_roadmap(
    recipe: str | Path,
    ablation: str | Path,
    out: str | Path,
    num_seeds: int = 3,
) -> str:
    """Train all, write the pictures and their numbers, return the table.

    Writes ``roadmap.json``, ``roadmap.png`` (in the manner of the paper's Figure 1) and
    ``soft_mask.png`` (of its Figure 3b) into ``out``.
    """
    runs = roadmap_runs(recipe, ablation)
    records = train_runs(runs, range(num_seeds), out)
    summary = summarise(records)
    steps = {k: v for k, v in summary.items() if k not in (NO_MASK, LINEAR)}
    schedules = {mode: records[name] for mode, name in SCHEDULES.items()}
    some = next(iter(runs.values()))
    numbers = dict(
        data="scikit-learn's handwritten digits",
        epochs=some.train_cfg.max_epochs,
        soft_mask_ends=some.train_cfg.max_epochs // 2,
        summary=summary,
        curves={
            mode: [
                {key: seed[key] for key in ('accuracy', 'loss', 'soft_mask_rate')}
                for seed in seeds
            ]
            for mode, seeds in schedules.items()
        },
    )
    (Path(out) / 'roadmap.json').write_text(json.dumps(numbers, indent=1))
    draw_roadmap(steps, Path(out) / 'roadmap.png')
    draw_schedules(schedules, numbers['soft_mask_ends'], Path(out) / 'soft_mask.png')
    return table_of(summary)
