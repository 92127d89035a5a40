"""Scores of predictions: confusion matrix, label files, baselines."""

from illama_seg.evaluation.baselines import colour_baseline, position_baseline
from illama_seg.evaluation.confusion import ConfusionMatrix, class_numbers
from illama_seg.evaluation.label_files import LabelIds, count_label_files

__all__ = [
    'ConfusionMatrix',
    'LabelIds',
    'class_numbers',
    'colour_baseline',
    'count_label_files',
    'position_baseline',
]
