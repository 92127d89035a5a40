"""8-bit weights and activations: simulated, for training, and in integers."""

from illama_seg.quantization.backbone import (
    QuantizedILLaMA,
    calibrate,
    find_quantized,
    holds_integers,
    in_integers,
)
from illama_seg.quantization.int8 import (
    Int8Linear,
    int8_attention,
    to_int8,
    wrong_products,
)
from illama_seg.quantization.masks import mask_rows
from illama_seg.quantization.quantizer import Quantizer, QuantLinear

__all__ = [
    'Int8Linear',
    'QuantLinear',
    'QuantizedILLaMA',
    'Quantizer',
    'calibrate',
    'find_quantized',
    'holds_integers',
    'in_integers',
    'int8_attention',
    'mask_rows',
    'to_int8',
    'wrong_products',
]
