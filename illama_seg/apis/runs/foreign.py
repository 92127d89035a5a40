"""Give configs of other packages the loops and hooks that ours name."""

from __future__ import annotations

from mmengine.config import Config

LOOPS = {
    'EpochBasedTrainLoop': 'ResumableEpochTrainLoop',
    'IterBasedTrainLoop': 'ResumableIterTrainLoop',
}
# As in configs/_base_/default_runtime.py and classification_runtime.py.
HOOKS = {
    'logger': 'SafeLoggerHook',
    'checkpoint': 'SafeCheckpointHook',
    'initial_weights': 'InitialWeightsHook',
    'resume': 'ResumeHook',
    'finite_loss': 'FiniteLossHook',
    'corrupt_images': 'CorruptImagesHook',
    'rehearsal': 'RehearsalHook',
    'interruption': 'InterruptionHook',
    'plain_checkpoint': 'PlainCheckpointHook',
    'overview': 'OverviewHook',
}


def complete_runtime(cfg: Config) -> None:
    """Add loops and hooks that can be resumed, where a config names mmengine's or none.

    They take the same arguments. Configs of this package are not changed, nor are loops
    and hooks of other types, and hooks that are None.
    """
    train = cfg.train_cfg
    if 'type' not in train and 'by_epoch' in train:
        train.type = f'{"Epoch" if train.pop("by_epoch") else "Iter"}BasedTrainLoop'
    train.type = LOOPS.get(train.get('type'), train.get('type'))
    complete_hooks(cfg)


def complete_hooks(cfg: Config) -> None:
    """Add the hooks alone, as for a test."""
    hooks = cfg.setdefault('default_hooks', {})
    for name, kind in HOOKS.items():
        hook = hooks.setdefault(name, dict(type=kind))
        if hook is None and name not in ('logger', 'checkpoint'):
            del hooks[name]  # mmengine takes None for its own hooks only
        elif hook and hook.get('type') in ('LoggerHook', 'CheckpointHook'):
            hook.type = kind
