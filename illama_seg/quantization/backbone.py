"""The backbone with 8-bit blocks, and its way from float to integers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError
from illama_seg.quantization.blocks import fill_integers, make_quantized
from illama_seg.quantization.quantizer import Quantizer, QuantLinear


@MODELS.register_module()
class QuantizedILLaMA(ILLaMA):
    """iLLaMA whose blocks compute with 8-bit weights and activations.

    Attention (all projections and both products) and feed-forward network, weights by
    output channel, activations by tensor, as arXiv 2404.06773, Table 15. Embeddings,
    norms, softmax and residuals stay in float.

    Args:
        integers: compute in integers, with the weights of an exported file and on a CPU
            only; else simulate them, to train or to calibrate.
        args, options: see :class:`illama_seg.backbones.ILLaMA`.
    """

    def __init__(self, *args: Any, integers: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.integers = integers
        if self.lora is not None:
            raise UserError(
                'QuantizedILLaMA takes no adapters: set model.backbone.lora=None, and '
                'merge those of the checkpoint (convert_checkpoint with '
                'merge_lora=True)'
            )
        for block in self.blocks:
            make_quantized(block, integers)


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


def in_integers(model: nn.Module) -> nn.Module:
    """A copy of a calibrated or trained model that computes in integers.

    Raises:
        UserError: if its step sizes are not known, or it has integers already.
    """
    source = find_quantized(model)
    if source.integers:
        raise UserError('the model already computes in integers')
    for name, module in source.named_modules():
        if isinstance(module, Quantizer) and not module.ready:
            raise UserError(
                f'backbone.{name} has no step size: calibrate it '
                '(illama_seg.apis.quantize_after_training), or train it '
                '(illama_seg.apis.build_trainer)'
            )
    whole = copy.deepcopy(model)
    backbone = find_quantized(whole)
    for block, learned in zip(backbone.blocks, source.blocks, strict=True):
        make_quantized(block, integers=True)
        fill_integers(block, learned)
    backbone.integers = True
    return whole.eval()


def holds_integers(weights: dict[str, Tensor]) -> bool:
    """Return True if the weights are of a model in integers."""
    return any(value.dtype == torch.int8 for value in weights.values())
