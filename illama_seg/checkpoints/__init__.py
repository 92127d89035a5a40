"""Released iLLaMA files, our own checkpoints and LLaMA-2, read without running code."""

from illama_seg.checkpoints.checkpoint import Checkpoint, open_checkpoint
from illama_seg.checkpoints.convert import ConvertReport, convert_checkpoint, our_names
from illama_seg.checkpoints.llama import select_llama_weights
from illama_seg.checkpoints.loading import load_into_backbone, load_released
from illama_seg.checkpoints.lora import is_lora, merge_adapters
from illama_seg.checkpoints.reading import (
    GRID_KEY,
    MASK_KEY,
    fetch_checkpoint,
    read_checkpoint,
)
from illama_seg.checkpoints.released import RELEASED, ReleasedFile
from illama_seg.checkpoints.report import LoadReport
from illama_seg.checkpoints.unpickling import CURVE
from illama_seg.checkpoints.whole import all_weights, fit_to_model
from illama_seg.checkpoints.writing import weights_path, write_weights

__all__ = [
    'CURVE',
    'GRID_KEY',
    'MASK_KEY',
    'RELEASED',
    'Checkpoint',
    'ConvertReport',
    'LoadReport',
    'ReleasedFile',
    'all_weights',
    'convert_checkpoint',
    'fetch_checkpoint',
    'fit_to_model',
    'is_lora',
    'load_into_backbone',
    'load_released',
    'merge_adapters',
    'open_checkpoint',
    'our_names',
    'read_checkpoint',
    'select_llama_weights',
    'weights_path',
    'write_weights',
]
