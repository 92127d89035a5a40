"""Decode heads on the patches of the last block alone: linear, and class tokens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.layers import NORM_EPS
from illama_seg.layers.architectures import INIT_STD


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Classify every patch by a norm and a linear layer (arXiv 2105.05633).

    Args:
        in_channels: channels of the backbone.
        num_classes: number of classes.
        options: of mmseg's ``BaseDecodeHead``; ``in_index`` is the level, the last one
            by default.
    """

    def __init__(
        self, in_channels: int, *, num_classes: int, in_index: int = -1, **options: Any
    ) -> None:
        super().__init__(
            in_channels,
            in_channels,
            num_classes=num_classes,
            in_index=in_index,
            **options,
        )
        self.norm = nn.RMSNorm(in_channels, NORM_EPS)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Maps, (B, C, h, w) the level -> logits (B, num_classes, h, w).

        Raises:
            UserError: if the level is the tokens of queries.
        """
        level = self._transform_inputs(inputs)
        if level.ndim != 4:
            raise UserError(
                f'LinearHead in_index={self.in_index} are the tokens of queries: set '
                'model.backbone.num_queries=0, or the in_index of a map'
            )
        x = level.permute(0, 2, 3, 1)
        return self.cls_seg(self.norm(x).permute(0, 3, 1, 2))


@MODELS.register_module()
class ClassTokenHead(BaseDecodeHead):
    """Compare every patch with the token of every class, as Segmenter's masks.

    Patches and tokens go through a norm and a projection each, and are scaled to
    length 1. Their products, with a LayerNorm over the classes, are the logits
    (arXiv 2105.05633). The tokens are the queries of the backbone: its ``num_queries``
    is the number of classes.

    Args:
        in_channels: channels of the backbone.
        channels: channels of the projections.
        num_classes: number of classes.
        upscale: enlarge the patches four times before the products, by two transposed
            convolutions without overlap.
        options: of mmseg's ``BaseDecodeHead``.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        num_classes: int,
        upscale: bool = False,
        **options: Any,
    ) -> None:
        options.setdefault('init_cfg', None)  # mmseg's is of conv_seg
        options.setdefault('in_index', -2)
        super().__init__(in_channels, channels, num_classes=num_classes, **options)
        del self.conv_seg
        self.patch_norm = nn.RMSNorm(in_channels, NORM_EPS)
        self.token_norm = nn.RMSNorm(in_channels, NORM_EPS)
        self.patch_proj = nn.Linear(in_channels, channels, bias=False)
        self.token_proj = nn.Linear(in_channels, channels, bias=False)
        self.upscaling = nn.Sequential(
            *(_Doubling(channels) for _ in range(2 * upscale))
        )
        # A norm over one class would leave nothing.
        several = self.out_channels > 1
        self.logit_norm = (
            nn.LayerNorm(self.out_channels) if several else nn.Linear(1, 1)
        )

    def init_weights(self) -> None:
        """Draw the projections, and start a single class with a slope of ten."""
        super().init_weights()
        for layer in (self.patch_proj, self.token_proj):
            nn.init.trunc_normal_(layer.weight, std=INIT_STD)
        if isinstance(self.logit_norm, nn.Linear):
            nn.init.constant_(self.logit_norm.weight, 10.0)
            nn.init.zeros_(self.logit_norm.bias)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compare patches with class tokens.

        Args:
            inputs: maps, the last one (B, C, h, w), and after them the tokens
                (B, num_classes, C).

        Returns:
            Logits (B, num_classes, h, w), or (B, num_classes, 4 h, 4 w) upscaled.

        Raises:
            UserError: if the backbone returns no tokens, or of another number.
        """
        maps, tokens = self._transform_inputs(inputs), inputs[-1]
        if tokens.ndim != 3 or tokens.size(1) != self.out_channels:
            found = tokens.size(1) if tokens.ndim == 3 else 0
            raise UserError(
                f'ClassTokenHead of {self.out_channels} classes got {found} tokens: '
                f'set model.backbone.num_queries={self.out_channels}'
            )
        patches = self.patch_proj(self.patch_norm(maps.permute(0, 2, 3, 1)))
        patches = self.upscaling(patches.permute(0, 3, 1, 2))
        if self.dropout is not None:
            patches = self.dropout(patches)
        tokens = self.token_proj(self.token_norm(tokens))
        # Products of unit vectors lose too much in half precision.
        with _without_autocast(maps.device.type):
            patches = F.normalize(patches.flatten(2).to(self._wide(patches)), dim=1)
            tokens = F.normalize(tokens.to(self._wide(tokens)), dim=2)
            logits = self.logit_norm((tokens @ patches).transpose(1, 2))
        scale = 4 if len(self.upscaling) else 1
        size = maps.size(2) * scale, maps.size(3) * scale
        return logits.transpose(1, 2).unflatten(2, size)

    def _wide(self, x: Tensor) -> torch.dtype:
        return torch.promote_types(x.dtype, self.patch_norm.weight.dtype)


def _without_autocast(device: str) -> AbstractContextManager:
    if not torch.amp.is_autocast_available(device):  # as on meta
        return nullcontext()
    return torch.autocast(device, enabled=False)


class _Doubling(nn.Module):
    """Make a map twice as large: 2x2 pixels of each, a norm and GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.norm = nn.RMSNorm(channels, NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2 h, 2 w)."""
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return F.gelu(x).permute(0, 3, 1, 2)
