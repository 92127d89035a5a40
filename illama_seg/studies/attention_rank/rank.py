"""Rank of attention maps, by their singular values.

Figures 4 and 11 of arXiv 2404.06773: cumulative singular values of a map, largest
first, divided by their sum. The later this curve reaches 0.8, the higher is the rank.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.layers import SelfAttention

_ROUNDING = 1e-6

# Number of the layer from 1, kind, maps (B, h, N, N). Kinds: 'softmax', the weights of
# all tokens, and 'masked', the weights after the mask, if there is one.
See = Callable[[int, str, Tensor], None]


@contextmanager
def watch_attention(model: nn.Module, see: See) -> Iterator[None]:
    """Hand the attention maps of every forward pass to a function, layer by layer.

    A backbone of this package computes its maps with ``SelfAttention.maps``; a
    transformer of timm computes them with its own unfused attention. Raises a UserError
    if the model has neither.
    """
    ours = [m for m in model.modules() if isinstance(m, SelfAttention)]
    timms: list[Any] = [
        m
        for m in model.modules()
        if hasattr(m, 'fused_attn')
        and isinstance(getattr(m, 'attn_drop', 0), nn.Module)
    ]
    if not ours and not timms:
        raise UserError(
            f'{type(model).__name__} has no attention maps: expected a backbone of '
            "illama_seg, or a transformer of timm's whose attention has attn_drop and "
            'fused_attn, such as vit_tiny_patch16_224'
        )

    with ExitStack() as stack:
        for layer, attention in enumerate(ours, 1):
            hook = partial(_see_maps, see, layer)
            handle = attention.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        for layer, other in enumerate(timms, 1):
            stack.callback(setattr, other, 'fused_attn', other.fused_attn)
            other.fused_attn = False
            hook = partial(_see_timms_maps, see, layer)
            stack.callback(other.attn_drop.register_forward_pre_hook(hook).remove)
        yield


def _see_maps(
    see: See, layer: int, module: SelfAttention, args: tuple, kwargs: dict
) -> None:
    if kwargs.get('image') is not None:  # queries
        return
    softmax, masked = module.maps(*args)
    see(layer, 'softmax', softmax)
    if module.mask != 'bidirectional':
        see(layer, 'masked', masked)


def _see_timms_maps(see: See, layer: int, module: nn.Module, args: tuple) -> None:
    see(layer, 'softmax', args[0])


def cumulative_singular_values(maps: Tensor) -> Tensor:
    """Sum the largest singular values, as shares of all: (..., N, N) -> (..., N).

    Raises a UserError if a map is not finite.
    """
    if not maps.isfinite().all():
        raise UserError('an attention map is not finite: the weights have diverged')
    values = torch.linalg.svdvals(maps.float()).double()
    return values.cumsum(-1) / values.sum(-1, keepdim=True)


def rank_index(curves: Tensor, share: float) -> Tensor:
    """Count the singular values up to the share: (..., N) -> (...)."""
    return (curves < share - _ROUNDING).sum(-1) + 1


class AttentionRank:
    """Streaming statistics of many maps; the index is where the sum has the share."""

    def __init__(self, share: float = 0.8) -> None:
        self.share = share
        self._sums: dict[tuple[int, str], list[Tensor]] = {}

    def update(self, layer: int, kind: str, maps: Tensor) -> None:
        """Add maps (B, h, N, N); a UserError if not finite or of another size."""
        curves = cumulative_singular_values(maps).cpu()
        index = rank_index(curves, self.share).double()
        count = torch.tensor(float(len(curves)))
        new = [curves.sum(0), index.sum(0), index.square().sum(0), count]
        old = self._sums.setdefault((layer, kind), [torch.zeros_like(x) for x in new])
        if old[0].shape != new[0].shape:
            raise UserError(
                f'layer {layer}: maps of {tuple(new[0].shape)} heads and tokens after '
                f'{tuple(old[0].shape)}: expected images of one size'
            )
        self._sums[layer, kind] = [a + b for a, b in zip(old, new, strict=True)]

    def summary(self) -> list[dict]:
        """Make a row for each layer, kind and head; layers and heads count from 1.

        Returns:
            ``layer``, ``kind``, ``head``, ``tokens`` N, the mean ``curve`` of N shares,
            its ``index`` in 1..N, and ``mean`` and ``std`` of the single maps' indices.
        """
        rows = []
        for (layer, kind), (curves, total, squares, count) in self._sums.items():
            mean = total / count
            std = (squares / count - mean.square()).clamp(min=0).sqrt()
            for head, curve in enumerate(curves / count):
                rows.append(
                    dict(
                        layer=layer,
                        kind=kind,
                        head=head + 1,
                        tokens=len(curve),
                        index=int(rank_index(curve, self.share)),
                        mean=round(float(mean[head]), 3),
                        std=round(float(std[head]), 3),
                        curve=[round(value, 5) for value in curve.tolist()],
                    )
                )
        return rows
