"""Data sets and their checks, registered with MMEngine's root registries."""

from illama_seg.datasets.base import (
    CamVidDataset,
    CheckAnnotations,
    CheckedADE20KDataset,
    CheckedSegDataset,
    ScenesDataset,
)

__all__ = [
    'CamVidDataset',
    'CheckAnnotations',
    'CheckedADE20KDataset',
    'CheckedSegDataset',
    'ScenesDataset',
]
