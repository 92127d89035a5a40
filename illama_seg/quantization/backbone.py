"""The backbone with 8-bit blocks, and the calibration of its step sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError
from illama_seg.quantization.blocks import make_quantized
from illama_seg.quantization.quantizer import Quantizer, QuantLinear


@MODELS.register_module()
class QuantizedILLaMA(ILLaMA):
    """iLLaMA whose blocks simulate 8-bit weights and activations.

    Attention (all projections and both products) and feed-forward network, weights by
    output channel, activations by tensor, as arXiv 2404.06773, Table 15. Embeddings,
    norms, softmax and residuals stay in float. It is for training and calibration;
    :func:`illama_seg.apis.export_model` writes a file that runs in integers.

    Args:
        args, options: see :class:`illama_seg.backbones.ILLaMA`.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.lora is not None:
            raise UserError(
                'QuantizedILLaMA takes no adapters: set model.backbone.lora=None, and '
                'merge those of the checkpoint (convert_checkpoint with '
                'merge_lora=True)'
            )
        for block in self.blocks:
            make_quantized(block)


def find_quantized(model: nn.Module) -> QuantizedILLaMA:
    """The backbone of a segmentor or classifier.

    Raises:
        UserError: if it is another one.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, QuantizedILLaMA):
        raise UserError(
            f"model.backbone is {type(backbone).__name__}: expected 'QuantizedILLaMA'"
        )
    return backbone


def calibrate(model: nn.Module, run: Callable[[], None]) -> int:
    """Find the step sizes of a simulated model.

    Args:
        model: segmentor or classifier with the weights of a float model.
        run: puts images through it.

    Returns:
        How many step sizes were found.
    """
    modules = list(find_quantized(model).modules())
    quantizers = [module for module in modules if isinstance(module, Quantizer)]
    for quantizer in quantizers:
        quantizer.observe()
    run()
    for quantizer in quantizers:
        quantizer.settle()
    for module in modules:
        if isinstance(module, QuantLinear):
            module.rounded_weight()  # which finds its steps
    return len(quantizers)
