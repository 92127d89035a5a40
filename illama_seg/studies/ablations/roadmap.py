"""Roadmap from ViT to iLLaMA (Table 17) in micro size on handwritten digits."""

from pathlib import Path

from mmengine.config import Config

from illama_seg.apis.configs import load_config
from illama_seg.studies.ablations.draw import draw_roadmap, draw_schedules
from illama_seg.studies.ablations.many_runs import train_runs
from illama_seg.studies.common import mean_and_std, write_results
from illama_seg.studies.tables import Table

PARTS = ('ffn', 'norm', 'attn_mask', 'cls_position', 'with_pos_embed', 'with_rotary')
# Config of configs/ablation -> its name in the table and in the drawing.
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
# The soft mask of Eq. 2 at rate 0: its denominators include future tokens.
MULTIPLIED = {'4_causal': '4 by Eq. 2', '5_last_cls': '5 by Eq. 2'}
SOFT = {'model.backbone.attn_mask': 'soft'}
# Schedules of the soft mask, drawn separately.
SCHEDULES = {mode: f'soft mask: {mode}' for mode in ('none', 'constant', 'linear')}
# With 16 patches the class token, last in the sequence, attends to every patch with and
# without the soft mask, so its end changes almost nothing. With 1x1 patches single
# tokens carry little information and must attend to each other. Without mixing, whose
# noise in the training loss would hide the jump.
SCHEDULES_SETTING = {
    'model.backbone.patch_size': 1,
    'model.data_preprocessor.mixup': 0.0,
    'model.data_preprocessor.cutmix': 0.0,
    'optim_wrapper.optimizer.lr': 4e-3,
    'train_cfg.max_epochs': 16,
}
LOG_EVERY = 2  # iterations; an epoch has 22
COLUMNS = {
    'step': '{name}',
    'accuracy, %': '{accuracy[mean]:.1f} ± {accuracy[std]:.1f}',
    'train loss': '{loss[mean]:.3f} ± {loss[std]:.3f}',
}


def roadmap_runs(recipe: str | Path, ablation: str | Path) -> dict[str, Config]:
    """Make configs of a micro model for the steps and the soft mask's schedules.

    A step has the parts, the mixing and the soft mask of ``tiny_{step}.py``, and all
    other settings of the recipe, the config of the micro model; ``ablation`` is the
    steps' folder. The schedules are three more runs of step 9 with
    ``SCHEDULES_SETTING``. The soft mask ends after half of the training. Raises a
    MissingFileError if a config is missing.

    Returns:
        Name -> config.
    """
    runs: dict[str, Config] = {}
    for step, name in STEPS.items():
        source = load_config(Path(ablation) / f'tiny_{step}.py')
        runs[name] = _micro(recipe, source)
        if step in MULTIPLIED:
            runs[MULTIPLIED[step]] = _micro(recipe, source, SOFT)
    for mode, name in SCHEDULES.items():
        source = load_config(Path(ablation) / 'tiny_9_soft_mask.py')
        set_mask(source, mode)
        runs[name] = _micro(recipe, source, SCHEDULES_SETTING)
    return runs


def set_mask(cfg: Config, mode: str) -> None:
    """Change the mode of a config's only hook, the soft mask's; 'none' removes it."""
    if mode == 'none':
        cfg.custom_hooks = []
    else:
        cfg.custom_hooks[0].mode = mode


def _micro(recipe: str | Path, source: Config, options: dict | None = None) -> Config:
    cfg = load_config(recipe)
    backbone = source.model.backbone
    cfg.model.backbone.update({key: backbone[key] for key in PARTS})
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
    # Without a name mmengine makes a new one; with it all runs share the first one's.
    cfg.visualizer.pop('name', None)
    return cfg


def summarise(records: dict[str, list[dict]]) -> dict[str, dict]:
    """Summarise each run's last accuracy and loss: mean, standard deviation, seeds."""
    summary: dict[str, dict] = {name: {} for name in records}
    for name, seeds in records.items():
        for key in ('accuracy', 'loss'):
            values = [record[key][-1] for record in seeds]
            summary[name][key] = dict(mean_and_std(values), seeds=values)
    return summary


def table_of(summary: dict[str, dict]) -> Table:
    """Make a table of a summary."""
    return Table.of([dict(row, name=name) for name, row in summary.items()], COLUMNS)


def run_roadmap(
    recipe: str | Path,
    ablation: str | Path,
    *,
    out: str | Path,
    num_seeds: int = 3,
    num_workers: int | None = None,
) -> str:
    """Train all runs, draw them, and return the table.

    Writes ``roadmap.json``, ``roadmap.png`` (as the paper's Figure 1) and
    ``soft_mask.png`` (as its Figure 3b) into ``out``.
    """
    runs = roadmap_runs(recipe, ablation)
    records = train_runs(runs, range(num_seeds), out, num_workers)
    summary = summarise(records)
    ends = runs[SCHEDULES['constant']].custom_hooks[0].cutoff
    steps = {k: v for k, v in summary.items() if k not in SCHEDULES.values()}
    schedules = {mode: records[name] for mode, name in SCHEDULES.items()}
    table = table_of(summary)
    write_results(
        Path(out) / 'roadmap.json',
        [table],
        data="scikit-learn's handwritten digits",
        epochs={name: cfg.train_cfg.max_epochs for name, cfg in runs.items()},
        soft_mask_ends=ends,
        summary=summary,
        curves={
            mode: [{k: v for k, v in seed.items() if k != 'settings'} for seed in seeds]
            for mode, seeds in schedules.items()
        },
    )
    draw_roadmap(steps, Path(out) / 'roadmap.png')
    draw_schedules(schedules, ends, Path(out) / 'soft_mask.png')
    return str(table)
