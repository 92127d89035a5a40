"""Decode heads, registered with MMEngine's root registry."""

from illama_seg.heads.uper import EfficientUPerHead

__all__ = ['EfficientUPerHead']
