"""Measures of segmentations, and of models by their complexity."""

from illama_seg.evaluation.baselines import colour_baseline, position_baseline
from illama_seg.evaluation.complexity import (
    MultiplyAccumulates,
    count_multiply_accumulates,
)
from illama_seg.evaluation.confusion import ConfusionMatrix
from illama_seg.evaluation.label_files import LabelIds, count_label_files

__all__ = [
    'ConfusionMatrix',
    'LabelIds',
    'MultiplyAccumulates',
    'colour_baseline',
    'count_label_files',
    'count_multiply_accumulates',
    'position_baseline',
]
