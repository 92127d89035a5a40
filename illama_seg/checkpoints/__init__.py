"""Released iLLaMA files, our own checkpoints and LLaMA-2, read without running code."""

from illama_seg.checkpoints.convert import ConvertReport, convert_checkpoint, our_names
from illama_seg.checkpoints.llama import select_llama_weights
from illama_seg.checkpoints.loading import (
    LoadReport,
    find_weights,
    load_classifier,
    load_into_backbone,
    load_released,
)
from illama_seg.checkpoints.reading import GRID_KEY, fetch_checkpoint, read_checkpoint
from illama_seg.checkpoints.released import RELEASED, ReleasedFile
from illama_seg.checkpoints.writing import weights_path, write_weights

__all__ = [
    'GRID_KEY',
    'RELEASED',
    'ConvertReport',
    'LoadReport',
    'ReleasedFile',
    'convert_checkpoint',
    'fetch_checkpoint',
    'find_weights',
    'load_classifier',
    'load_into_backbone',
    'load_released',
    'our_names',
    'read_checkpoint',
    'select_llama_weights',
    'weights_path',
    'write_weights',
]
