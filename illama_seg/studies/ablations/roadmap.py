"""The roadmap from ViT to iLLaMA (Table 17) in micro size, on handwritten digits."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from mmengine.config import Config
from prettytable import PrettyTable

from illama_seg.apis.configs import load_config
from illama_seg.studies.ablations.draw import draw_roadmap, draw_schedules
from illama_seg.studies.ablations.many_runs import train_runs

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
SOFT = {'model.backbone.attn_mask': 'soft'}
# The soft mask's schedules, for a picture of their own.
SCHEDULES = {mode: f'soft mask: {mode}' for mode in ('none', 'constant', 'linear')}
# In the steps' setting the end of the mask costs next to nothing: 16 patches of 2x2 are
# told apart one by one by the class token, which sees them all with and without it.
# Single pixels say little alone, and at the paper's learning rate they learn to look at
# one another. Mixing's noise in the training loss would be larger than the jump.
SCHEDULES_SETTING = {
    'model.backbone.patch_size': 1,
    'model.data_preprocessor.mixup': 0.0,
    'model.data_preprocessor.cutmix': 0.0,
    'optim_wrapper.optimizer.lr': 4e-3,
    'train_cfg.max_epochs': 16,
}
# Iterations to a value of the loss; an epoch has 22.
LOG_EVERY = 2


def roadmap_runs(recipe: str | Path, ablation: str | Path) -> dict[str, Config]:
    """The roadmap's steps and the soft mask's schedules, as configs of a micro model.

    A step takes its parts, its mixing and its soft mask from ``tiny_{step}.py``, all
    else from the recipe. The schedules are three more runs of step 9, in a setting of
    their own. The soft mask ends after half of the training.

    Args:
        recipe: config of the micro model.
        ablation: folder of the steps' configs.

    Returns:
        Name -> config.

    Raises:
        FileNotFoundError: if a config is missing.
    """
    runs: dict[str, Config] = {}
    for step, name in STEPS.items():
        source = load_config(Path(ablation) / f'tiny_{step}.py')
        runs[name] = _micro(recipe, source)
        if step in MULTIPLIED:
            runs[MULTIPLIED[step]] = _micro(recipe, source, SOFT)
    for mode, name in SCHEDULES.items():
        source = load_config(Path(ablation) / 'tiny_9_soft_mask.py')
        if mode == 'none':
            source.custom_hooks = []
        else:
            source.custom_hooks[0].mode = mode
        runs[name] = _micro(recipe, source, SCHEDULES_SETTING)
    return runs


def _micro(recipe: str | Path, source: Config, options: dict | None = None) -> Config:
    cfg = load_config(recipe)
    found = source.model.backbone
    cfg.model.backbone.update({key: found[key] for key in PARTS})
    mixing = source.model.data_preprocessor
    cfg.model.data_preprocessor.update(mixup=mixing.mixup, cutmix=mixing.cutmix)
    cfg.custom_hooks = source.custom_hooks
    cfg.train_cfg.val_interval = 1
    cfg.merge_from_dict(options or {})
    for hook in cfg.custom_hooks:
        hook.cutoff = cfg.train_cfg.max_epochs // 2
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = LOG_EVERY
    cfg.log_processor = dict(window_size=LOG_EVERY)
    cfg.log_level = 'ERROR'
    # By a name of its own, or mmengine gives every run the first one's.
    cfg.visualizer.pop('name', None)
    return cfg


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
    num_workers: int | None = None,
) -> str:
    """Train all, write the pictures and their numbers, return the table.

    Writes ``roadmap.json``, ``roadmap.png`` (in the manner of the paper's Figure 1) and
    ``soft_mask.png`` (of its Figure 3b) into ``out``.
    """
    runs = roadmap_runs(recipe, ablation)
    records = train_runs(runs, range(num_seeds), out, num_workers)
    summary = summarise(records)
    steps = {k: v for k, v in summary.items() if k not in SCHEDULES.values()}
    schedules = {mode: records[name] for mode, name in SCHEDULES.items()}
    numbers = dict(
        data="scikit-learn's handwritten digits",
        epochs={name: cfg.train_cfg.max_epochs for name, cfg in runs.items()},
        soft_mask_ends=runs[SCHEDULES['constant']].custom_hooks[0].cutoff,
        summary=summary,
        curves={
            mode: [
                {key: value for key, value in seed.items() if key != 'settings'}
                for seed in seeds
            ]
            for mode, seeds in schedules.items()
        },
    )
    (Path(out) / 'roadmap.json').write_text(json.dumps(numbers, indent=1))
    draw_roadmap(steps, Path(out) / 'roadmap.png')
    draw_schedules(schedules, numbers['soft_mask_ends'], Path(out) / 'soft_mask.png')
    return table_of(summary)
