"""The roadmap's runs, made short: two epochs of two updates."""

from pathlib import Path

CONFIGS = Path(__file__).parents[1] / 'configs'
RECIPE, ABLATION = CONFIGS / 'pretrain/illama_micro_digits.py', CONFIGS / 'ablation'


def short(runs):
    """Runs of ``ablations.roadmap.roadmap_runs``, changed in place."""
    for cfg in runs.values():
        cfg.train_cfg.max_epochs = 2
        cfg.param_scheduler[0].warmup = 1
        cfg.train_dataloader.dataset.indices = 128
        cfg.val_dataloader.dataset.indices = 120
        cfg.model.backbone.arch.num_layers = 1
        cfg.model.backbone.patch_size = 2
        for hook in cfg.custom_hooks:
            hook.cutoff = 1
    return runs
