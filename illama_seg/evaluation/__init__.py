"""Measures of predictions, and of models by their complexity."""

from illama_seg.evaluation.attention_rank import (
    AttentionRank,
    cumulative_singular_values,
    rank_index,
    watch_attention,
)
from illama_seg.evaluation.baselines import colour_baseline, position_baseline
from illama_seg.evaluation.calibration import CalibrationCounts, fit_temperature
from illama_seg.evaluation.complexity import (
    MultiplyAccumulates,
    SelfAttentionCounts,
    closed_forms,
    count_multiply_accumulates,
    count_self_attention,
)
from illama_seg.evaluation.confusion import ConfusionMatrix
from illama_seg.evaluation.label_files import LabelIds, count_label_files
from illama_seg.evaluation.loss_landscape import (
    WeightPlane,
    random_direction,
    weights_digest,
)
from illama_seg.evaluation.shape_bias import (
    IMAGENET_CATEGORIES,
    Decision,
    category_numbers,
    conflict_of,
    decide,
    read_decisions,
    shape_bias,
    write_decisions,
)

__all__ = [
    'IMAGENET_CATEGORIES',
    'AttentionRank',
    'CalibrationCounts',
    'ConfusionMatrix',
    'Decision',
    'LabelIds',
    'MultiplyAccumulates',
    'SelfAttentionCounts',
    'WeightPlane',
    'category_numbers',
    'closed_forms',
    'colour_baseline',
    'conflict_of',
    'count_label_files',
    'count_multiply_accumulates',
    'count_self_attention',
    'cumulative_singular_values',
    'decide',
    'fit_temperature',
    'position_baseline',
    'random_direction',
    'rank_index',
    'read_decisions',
    'shape_bias',
    'watch_attention',
    'weights_digest',
    'write_decisions',
]
