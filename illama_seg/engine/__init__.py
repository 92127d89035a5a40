"""Optimisation, schedules, logging and long runs, in MMEngine's root registries."""

from illama_seg.engine.checkpoint import POINTER, SafeCheckpointHook
from illama_seg.engine.corrupt import CorruptImagesHook
from illama_seg.engine.finite import FiniteLossHook
from illama_seg.engine.interruption import EXIT_CODE, Interrupted, InterruptionHook
from illama_seg.engine.loops import (
    RESUMABLE,
    ResumableEpochTrainLoop,
    ResumableIterTrainLoop,
)
from illama_seg.engine.optim import (
    AutocastOptimWrapper,
    LayerDecayConstructor,
    training_precision,
)
from illama_seg.engine.plain_checkpoint import PlainCheckpointHook
from illama_seg.engine.resume import ResumeHook
from illama_seg.engine.schedule import WarmupCosineLR, WholeUpdatesSampler
from illama_seg.engine.seeding import SeededDataset, SeededSampler
from illama_seg.engine.sharding import ShardedRunner
from illama_seg.engine.soft_mask import SoftMaskHook
from illama_seg.engine.time_estimate import TimeEstimateHook
from illama_seg.engine.visual import ConfigWandbVisBackend, SafeLoggerHook

__all__ = [
    'EXIT_CODE',
    'POINTER',
    'RESUMABLE',
    'AutocastOptimWrapper',
    'ConfigWandbVisBackend',
    'CorruptImagesHook',
    'FiniteLossHook',
    'Interrupted',
    'InterruptionHook',
    'LayerDecayConstructor',
    'PlainCheckpointHook',
    'ResumableEpochTrainLoop',
    'ResumableIterTrainLoop',
    'ResumeHook',
    'SafeCheckpointHook',
    'SafeLoggerHook',
    'SeededDataset',
    'SeededSampler',
    'ShardedRunner',
    'SoftMaskHook',
    'TimeEstimateHook',
    'WarmupCosineLR',
    'WholeUpdatesSampler',
    'training_precision',
]
