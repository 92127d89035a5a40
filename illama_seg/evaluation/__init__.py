"""Measures of segmentations, and of models by their complexity."""

from illama_seg.evaluation.baselines import colour_baseline, position_baseline
from illama_seg.evaluation.complexity import (
    MultiplyAccumulates,
    count_multiply_accumulates,
)
from illama_seg.evaluation.confusion import ConfusionMatrix

__all__ = [
    'ConfusionMatrix',
    'MultiplyAccumulates',
    'colour_baseline',
    'count_multiply_accumulates',
    'position_baseline',
]
