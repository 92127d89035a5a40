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
from illama_seg.deploy.sidecar import read_sidecar
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

    How images are normalised, cut and enlarged is the file's own; the test pipeline is
    the config's.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if the file classifies, or does not fit the config.
    """
    sidecar = read_sidecar(file)
    if sidecar.task != 'segmentation' or 'decode_head' not in cfg.model:
        raise UserError(
            f'{file} is a {sidecar.task}: expected the file and the config '
            f'({cfg.filename}) of a segmentation'
        )
    head = cfg.model.decode_head
    if head.num_classes != len(sidecar.classes):
        raise UserError(
            f'{file} has {len(sidecar.classes)} classes, but model.decode_head.'
            f'num_classes={head.num_classes}: use the config that it was exported from'
        )
    test: dict[str, Any] = dict(mode='whole')
    if sidecar.windows:
        crop, stride = sidecar.windows['crop'], sidecar.windows['stride']
        test = dict(mode='slide', crop_size=tuple(crop), stride=tuple(stride))
    one = {} if sidecar.threshold is None else dict(threshold=sidecar.threshold)
    cfg = cfg.copy()
    cfg.model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=sidecar.mean,
            std=sidecar.std,
            bgr_to_rgb=sidecar.to_rgb,
        ),
        test_cfg=test,
        backbone=dict(type='Unchanged'),
        decode_head=dict(
            type='ExportedHead',
            file=str(file),
            in_channels=sidecar.channels,
            channels=1,
            num_classes=len(sidecar.classes),
            out_channels=1 if one else len(sidecar.classes),
            align_corners=sidecar.align_corners,
            **one,
        ),
    )
    return cfg
