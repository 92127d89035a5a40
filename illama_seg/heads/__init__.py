"""Decode heads, registered with MMEngine's root registry, and their inference form."""

from illama_seg.heads.folding import fold_for_inference
from illama_seg.heads.tokens import ClassTokenHead, LinearHead
from illama_seg.heads.tta import AveragingTTAModel
from illama_seg.heads.uper import EfficientUPerHead

__all__ = [
    'AveragingTTAModel',
    'ClassTokenHead',
    'EfficientUPerHead',
    'LinearHead',
    'fold_for_inference',
]
