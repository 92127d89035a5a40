"""8-bit weights and activations, simulated: for training and calibration."""

from illama_seg.quantization.backbone import (
    QuantizedILLaMA,
    calibrate,
    find_quantized,
)
from illama_seg.quantization.masks import mask_matrices
from illama_seg.quantization.quantizer import Quantizer, QuantLinear

__all__ = [
    'QuantLinear',
    'QuantizedILLaMA',
    'Quantizer',
    'calibrate',
    'find_quantized',
    'mask_matrices',
]
