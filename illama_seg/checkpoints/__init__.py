"""Released iLLaMA files and our own checkpoints, read without running their code."""

from illama_seg.checkpoints.loading import (
    GRID_KEY,
    LoadReport,
    load_classifier,
    load_into_backbone,
    load_released,
)
from illama_seg.checkpoints.reading import fetch_checkpoint, read_checkpoint
from illama_seg.checkpoints.released import RELEASED, ReleasedFile

__all__ = [
    'GRID_KEY',
    'RELEASED',
    'LoadReport',
    'ReleasedFile',
    'fetch_checkpoint',
    'load_classifier',
    'load_into_backbone',
    'load_released',
    'read_checkpoint',
]
