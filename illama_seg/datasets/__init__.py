"""Data sets and their checks, registered with MMEngine's root registries."""

from illama_seg.datasets.base import (
    CamVidDataset,
    CheckAnnotations,
    CheckedADE20KDataset,
    CheckedSegDataset,
    ScenesDataset,
)
from illama_seg.datasets.loading import LoadAnnotations, LoadImageFromFile

__all__ = [
    'CamVidDataset',
    'CheckAnnotations',
    'CheckedADE20KDataset',
    'CheckedSegDataset',
    'LoadAnnotations',
    'LoadImageFromFile',
    'ScenesDataset',
]
