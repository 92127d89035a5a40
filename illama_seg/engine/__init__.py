"""Optimisation, schedules and logging, registered with MMEngine's root registries."""

from illama_seg.engine.optim import BFloat16OptimWrapper, LayerDecayConstructor
from illama_seg.engine.schedule import WarmupCosineLR, WholeUpdatesSampler
from illama_seg.engine.sharding import ShardedRunner
from illama_seg.engine.soft_mask import SoftMaskHook
from illama_seg.engine.time_estimate import TimeEstimateHook
from illama_seg.engine.visual import ConfigWandbVisBackend

__all__ = [
    'BFloat16OptimWrapper',
    'ConfigWandbVisBackend',
    'LayerDecayConstructor',
    'ShardedRunner',
    'SoftMaskHook',
    'TimeEstimateHook',
    'WarmupCosineLR',
    'WholeUpdatesSampler',
]
