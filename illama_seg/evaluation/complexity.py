"""Multiply-accumulates of a segmentor or classifier, counted as the papers count.

Table 10 of arXiv 2404.06773 calls them FLOPs, and leaves out the auxiliary head and the
two products of the attention, q k^T and the weights times v: counters hooked to modules
do not see them. torch counts two operations for each multiply-accumulate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from illama_seg.layers import SelfAttention

_LINEAR = ('convolution', 'addmm', 'mm')


@dataclass(frozen=True)
class MultiplyAccumulates:
    """Of one image; multiply-accumulates, not FLOPs.

    Attributes:
        linear: products with weights: convolutions and linear layers.
        attention: the two products of every attention, of all N x N weights.
        auxiliary: products with weights in the auxiliary heads, which only train.
    """

    linear: int
    attention: int
    auxiliary: int

    def total(self, attention: bool, auxiliary: bool) -> int:
        """Their sum, with the attention's products and auxiliary heads or without."""
        return self.linear + attention * self.attention + auxiliary * self.auxiliary


def count_multiply_accumulates(
    model: nn.Module, shape: tuple[int, int]
) -> MultiplyAccumulates:
    """Count what one image takes; norms, activations and resizing are not counted.

    Args:
        model: mmseg's ``EncoderDecoder`` or an ``ImageClassifier`` with a backbone of
            this package; on the device 'meta' nothing is computed.
        shape: (height, width) of the image.

    Raises:
        ValueError: if the model has neither a decode head nor a head.
    """
    parts: Any = model
    head = getattr(parts, 'decode_head', None) or getattr(parts, 'head', None)
    if head is None:
        raise ValueError(
            f'{type(model).__name__}: expected a segmentor with a decode_head or a '
            'classifier with a head'
        )
    auxiliary = getattr(parts, 'auxiliary_head', None)
    if auxiliary is not None and not isinstance(auxiliary, nn.ModuleList):
        auxiliary = [auxiliary]
    products: list[int] = []

    def count_products(module: nn.Module, args: tuple) -> None:
        batch, num_tokens, dims = args[0].shape
        products.append(2 * batch * num_tokens**2 * dims)

    handles = [
        module.register_forward_pre_hook(count_products)
        for module in model.modules()
        if isinstance(module, SelfAttention)
    ]
    training, device = model.training, next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = parts.backbone(image)
            if getattr(parts, 'neck', None) is not None:
                features = parts.neck(features)
            head(features)
        with torch.no_grad(), FlopCounterMode(display=False) as in_training:
            for other in auxiliary or ():
                other(features)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return MultiplyAccumulates(_linear(counter), sum(products), _linear(in_training))


def _linear(counter: FlopCounterMode) -> int:
    counts = counter.get_flop_counts().get('Global', {})
    operations = (n for op, n in counts.items() if str(op).split('.')[1] in _LINEAR)
    return sum(operations) // 2
