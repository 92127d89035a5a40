"""Multiply-accumulates of a model and of one self-attention, as papers count them.

Table 10 of arXiv 2404.06773 calls them FLOPs and omits the auxiliary head and the two
products of the attention, q k^T and the weights times v, which counters hooked to
modules do not see. torch counts two operations for each multiply-accumulate.

``EfficientUPerHead`` computes the same function with fewer products. Papers count
mmseg's; both numbers are given.
"""

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from illama_seg.errors import UserError
from illama_seg.heads import EfficientUPerHead
from illama_seg.layers import SelfAttention, attention_map, soft_causal_attention
from illama_seg.layers.attention_blocked import forward as blocked_forward
from illama_seg.studies.common import image_channels

_LINEAR = 'convolution', 'addmm', 'mm'
_BATCHED = 'bmm', 'baddbmm'  # products of two activations


@dataclass(frozen=True)
class MultiplyAccumulates:
    """Multiply-accumulates (not FLOPs) of one image.

    Attributes:
        linear: products with weights, convolutions and linear layers, of maps that
            are enlarged first, as papers count them.
        executed: products with weights that really run, and the small matrices by
            which ``EfficientUPerHead`` enlarges.
        attention: the two products of every attention, with all N x N weights; of a
            backbone of another package all batched products in it.
        auxiliary: products with weights in the auxiliary heads, used in training only.
    """

    linear: int
    executed: int
    attention: int
    auxiliary: int

    def total(self, attention: bool, auxiliary: bool, executed: bool = False) -> int:
        """Sum them, with or without attention products and auxiliary heads."""
        linear = self.executed if executed else self.linear
        return linear + attention * self.attention + auxiliary * self.auxiliary


def count_multiply_accumulates(
    model: nn.Module, shape: tuple[int, int]
) -> MultiplyAccumulates:
    """Count one image's products; norms, activations and resizing are not counted.

    Args:
        model: mmseg's ``EncoderDecoder`` or an ``ImageClassifier``, else a UserError;
            on 'meta' nothing is computed.
        shape: (height, width) of the image.
    """
    parts: Any = model
    head = getattr(parts, 'decode_head', None) or getattr(parts, 'head', None)
    if head is None:
        raise UserError(
            f'{type(model).__name__}: expected a segmentor with a decode_head or a '
            'classifier with a head'
        )
    auxiliary = getattr(parts, 'auxiliary_head', None) or ()
    if isinstance(auxiliary, nn.Module) and not isinstance(auxiliary, nn.ModuleList):
        auxiliary = [auxiliary]
    products: list[int] = []

    def count_products(module: nn.Module, args: tuple, kwargs: dict) -> None:
        batch, num_tokens, dims = args[0].shape
        image = kwargs.get('image')  # that queries see, and themselves
        num_keys = num_tokens if image is None else image.k.size(2) + 1
        products.append(2 * batch * num_tokens * num_keys * dims)

    training = model.training
    model.eval()
    with ExitStack() as stack:
        stack.callback(model.train, training)
        for module in model.modules():
            if isinstance(module, SelfAttention):
                handle = module.register_forward_pre_hook(
                    count_products, with_kwargs=True
                )
                stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        ours = any(isinstance(module, SelfAttention) for module in model.modules())
        # torch does not count fused kernels.
        by_formula = nullcontext() if ours else sdpa_kernel(SDPBackend.MATH)
        with by_formula, FlopCounterMode(display=False) as counter:
            device = next(model.parameters()).device
            image = torch.zeros(1, image_channels(model), *shape, device=device)
            features = parts.backbone(image)
            if getattr(parts, 'neck', None) is not None:
                features = parts.neck(features)
        with FlopCounterMode(display=False) as executed:
            head(features)
        by_papers = executed
        if isinstance(head, EfficientUPerHead):
            stack.callback(setattr, head, 'enlarge_first', head.enlarge_first)
            head.enlarge_first = True
            with FlopCounterMode(display=False) as by_papers:
                head(features)
        with FlopCounterMode(display=False) as in_training:
            for other in auxiliary:
                other(features)
    return MultiplyAccumulates(
        linear=_products(counter) + by_papers.get_total_flops() // 2,
        executed=_products(counter) + executed.get_total_flops() // 2,
        attention=sum(products) if ours else _products(counter, _BATCHED),
        auxiliary=_products(in_training),
    )


def _products(counter: FlopCounterMode, kinds: tuple[str, ...] = _LINEAR) -> int:
    counts = counter.get_flop_counts().get('Global', {})
    operations = (n for op, n in counts.items() if str(op).split('.')[1] in kinds)
    return sum(operations) // 2


def closed_forms(num_tokens: int, embed_dims: int) -> tuple[int, int]:
    """Evaluate Table 2 of arXiv 2404.06773 for one self-attention.

    Returns:
        4 N D^2 + 2 N^2 D bidirectional, and 4 N D^2 + N^2 D + (floor(N^2 / 2) + 1) D
        causal.
    """
    n, d = num_tokens, embed_dims
    linear, scores = 4 * n * d**2, n**2 * d
    return linear + 2 * scores, linear + scores + (n**2 // 2 + 1) * d


@dataclass(frozen=True)
class SelfAttentionCounts:
    """Multiply-accumulates of one self-attention, counted in a forward pass.

    Attributes:
        linear: the projections to q, k, v and from the output.
        bidirectional: both products, with all N x N weights.
        causal: all scores, and the weights that the soft mask at rate 0 keeps.
        strict: scores and weights that the strict mask keeps.
        executed: products of the CPU kernel for the soft mask at rate 0, which
            computes whole blocks of rows.
    """

    linear: int
    bidirectional: int
    causal: int
    strict: int
    executed: int


def count_self_attention(
    num_tokens: int, embed_dims: int, num_heads: int = 1
) -> SelfAttentionCounts:
    """Count one self-attention of one image, in memory quadratic in the tokens.

    The class token is one of the tokens; the counts do not depend on the heads.
    """
    with torch.device('meta'):
        attention = SelfAttention(embed_dims, num_heads, 'bidirectional')
        tokens = torch.empty(1, num_tokens, embed_dims)
    # By the formula, since torch does not count fused kernels.
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        attention(tokens, None, 0.0)
    linear = _products(counter)
    q = torch.zeros(1, num_heads, num_tokens, embed_dims // num_heads)
    with torch.no_grad(), FlopCounterMode(display=False) as kernel:
        blocked_forward(q, q, q, 0.0)
    # With equal scores every weight that the mask keeps is not 0.
    attend = partial(soft_causal_attention, soft_mask_rate=0.0)
    unmasked = int(attention_map(attend, q, q).count_nonzero())
    per_weight = embed_dims // num_heads
    return SelfAttentionCounts(
        linear=linear,
        bidirectional=counter.get_total_flops() // 2 - linear,
        causal=num_tokens**2 * embed_dims + unmasked * per_weight,
        strict=2 * unmasked * per_weight,
        executed=kernel.get_total_flops() // 2,
    )
