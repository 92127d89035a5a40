"""Optimisation, schedules, logging and long runs, in MMEngine's root registries."""

from illama_seg.engine.chunks import ChunkRowsHook
from illama_seg.engine.initial_weights import InitialWeightsHook
from illama_seg.engine.logs import ConfigWandbVisBackend, SafeLoggerHook
from illama_seg.engine.long_runs.checkpoint import POINTER, SafeCheckpointHook
from illama_seg.engine.long_runs.corrupt import CorruptImagesHook
from illama_seg.engine.long_runs.finite import FiniteLossHook
from illama_seg.engine.long_runs.interruption import (
    EXIT_CODE,
    Interrupted,
    InterruptionHook,
)
from illama_seg.engine.long_runs.loops import (
    ResumableEpochTrainLoop,
    ResumableIterTrainLoop,
)
from illama_seg.engine.long_runs.plain_checkpoint import PlainCheckpointHook
from illama_seg.engine.long_runs.resume import ResumeHook
from illama_seg.engine.long_runs.seeding import SeededDataset, SeededSampler
from illama_seg.engine.optim import (
    AutocastOptimWrapper,
    LayerDecayConstructor,
    MergedKeysConstructor,
    training_precision,
)
from illama_seg.engine.rehearsal import RehearsalError, RehearsalHook
from illama_seg.engine.schedule import WarmupCosineLR, WholeUpdatesSampler
from illama_seg.engine.sharding import ShardedRunner
from illama_seg.engine.soft_mask import SoftMaskHook

__all__ = [
    'EXIT_CODE',
    'POINTER',
    'AutocastOptimWrapper',
    'ChunkRowsHook',
    'ConfigWandbVisBackend',
    'CorruptImagesHook',
    'FiniteLossHook',
    'InitialWeightsHook',
    'Interrupted',
    'InterruptionHook',
    'LayerDecayConstructor',
    'MergedKeysConstructor',
    'PlainCheckpointHook',
    'RehearsalError',
    'RehearsalHook',
    'ResumableEpochTrainLoop',
    'ResumableIterTrainLoop',
    'ResumeHook',
    'SafeCheckpointHook',
    'SafeLoggerHook',
    'SeededDataset',
    'SeededSampler',
    'ShardedRunner',
    'SoftMaskHook',
    'WarmupCosineLR',
    'WholeUpdatesSampler',
    'training_precision',
]
