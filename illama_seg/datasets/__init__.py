"""Data sets and their checks, registered with MMEngine's root registries."""

from illama_seg.datasets.annotations import CheckAnnotations
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.datasets.preprocess import BandsPreProcessor
from illama_seg.datasets.published import (
    CheckedCityscapesDataset,
    CheckedCOCOStuffDataset,
    CheckedLoveDADataset,
    CheckedPascalContextDataset,
    CheckedPotsdamDataset,
    CheckedVOCDataset,
)
from illama_seg.datasets.segmentation import (
    CamVidDataset,
    CheckedADE20KDataset,
    CheckedSegDataset,
    ScenesDataset,
)

__all__ = [
    'BandsPreProcessor',
    'CamVidDataset',
    'CheckAnnotations',
    'CheckedADE20KDataset',
    'CheckedCOCOStuffDataset',
    'CheckedCityscapesDataset',
    'CheckedLoveDADataset',
    'CheckedPascalContextDataset',
    'CheckedPotsdamDataset',
    'CheckedSegDataset',
    'CheckedVOCDataset',
    'LabelledImages',
    'ScenesDataset',
]
