"""Measures of a segmentation, independent of any model."""

from illama_seg.evaluation.baselines import colour_baseline, position_baseline
from illama_seg.evaluation.confusion import ConfusionMatrix

__all__ = ['ConfusionMatrix', 'colour_baseline', 'position_baseline']
