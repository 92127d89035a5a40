"""An exported file in the place of a model's weights, for mmseg's inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from illama_seg.deploy.runtime import ExportedModel
from illama_seg.errors import UserError


@MODELS.register_module()
class Unchanged(nn.Module):
    """Backbone that hands the image on, to a head that is a whole model."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the image as the only map."""
        return (x,)


@MODELS.register_module()
class ExportedHead(BaseDecodeHead):
    """Decode head that runs an exported file on the image.

    Args:
        file: path of the exported file.
        options: of mmseg's ``BaseDecodeHead``.
    """

    def __init__(self, file: str, **options: Any) -> None:
        super().__init__(**options)
        self.exported = ExportedModel(file)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """(B, C, H, W) normalised -> logits (B, num_classes, h, w)."""
        logits = self.exported.logits(inputs[0].detach().cpu().float().numpy())
        return torch.from_numpy(logits).to(inputs[0].device)


def with_exported(cfg: Config, file: str) -> Config:
    """Return a segmentor's config whose model runs an exported file.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if the file classifies, or does not fit the config.
    """
    sidecar = ExportedModel(file).sidecar
    head = cfg.model.decode_head
    if sidecar.task != 'segmentation':
        raise UserError(f'{file} classifies: expected an exported segmentation')
    if head.num_classes != len(sidecar.classes):
        raise UserError(
            f'{file} has {len(sidecar.classes)} classes, but model.decode_head.'
            f'num_classes={head.num_classes}: use the config that it was exported from'
        )
    kept = ('num_classes', 'out_channels', 'threshold', 'align_corners')
    cfg = cfg.copy()
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=cfg.model.data_preprocessor,
        test_cfg=cfg.model.test_cfg,
        backbone=dict(type='Unchanged'),
        decode_head=dict(
            type='ExportedHead',
            file=str(file),
            in_channels=sidecar.channels,
            channels=1,
            **{key: head[key] for key in kept if key in head},
        ),
    )
    return cfg
