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
from illama_seg.deploy.sidecar import Sidecar, read_sidecar
from illama_seg.errors import UserError
from illama_seg.pretrain import LinearClsHead


@MODELS.register_module()
class Unchanged(nn.Module):
    """Backbone that hands the image on, to a head that is a whole model.

    Args:
        embed_dims: channels of the image.
    """

    def __init__(self, embed_dims: int = 3) -> None:
        super().__init__()
        self.embed_dims = embed_dims

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


@MODELS.register_module()
class ExportedClsHead(LinearClsHead):
    """Classification head that runs an exported file on the image.

    Args:
        file: path of the exported file.
        num_classes: number of classes.
        in_channels: channels of the image.
    """

    def __init__(self, file: str, num_classes: int, in_channels: int) -> None:
        super().__init__(num_classes, in_channels)
        del self.fc
        self.exported = ExportedModel(file)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """(B, C, H, W) normalised -> logits (B, num_classes)."""
        logits = self.exported.logits(feats[-1].detach().cpu().float().numpy())
        return torch.from_numpy(logits).to(feats[-1].device)


def with_exported(cfg: Config, file: str) -> Config:
    """Return a config whose model runs an exported file.

    How images are normalised, cut and enlarged is the file's own; the test pipeline is
    the config's.

    Raises:
        MissingFileError: if a file is missing.
        UserError: if the file is of another task or number of classes.
    """
    sidecar, segments = read_sidecar(file), 'decode_head' in cfg.model
    if segments != (sidecar.task == 'segmentation'):
        task = 'segmentation' if segments else 'classification'
        raise UserError(
            f'{file} is a {sidecar.task}, but {cfg.filename} a {task}: use the config '
            'that it was exported from'
        )
    name = 'decode_head' if segments else 'head'
    if (number := cfg.model[name].num_classes) != len(sidecar.classes):
        raise UserError(
            f'{file} has {len(sidecar.classes)} classes, but model.{name}.'
            f'num_classes={number}: use the config that it was exported from'
        )
    cfg = cfg.copy()
    cfg.model = (_segmentor if segments else _classifier)(sidecar, str(file))
    hooks = cfg.get('custom_hooks') or []  # the rate is part of the file
    cfg.custom_hooks = [hook for hook in hooks if hook['type'] != 'SoftMaskHook']
    return cfg


def _classifier(sidecar: Sidecar, file: str) -> dict[str, Any]:
    return dict(
        type='ImageClassifier',
        data_preprocessor=dict(
            type='ClsDataPreprocessor',  # takes shares of 255
            mean=[value / 255 for value in sidecar.mean],
            std=[value / 255 for value in sidecar.std],
        ),
        backbone=dict(type='Unchanged', embed_dims=sidecar.channels),
        head=dict(
            type='ExportedClsHead',
            file=file,
            num_classes=len(sidecar.classes),
            in_channels=sidecar.channels,
        ),
    )


def _segmentor(sidecar: Sidecar, file: str) -> dict[str, Any]:
    test: dict[str, Any] = dict(mode='whole')
    if sidecar.windows:
        crop, stride = sidecar.windows['crop'], sidecar.windows['stride']
        test = dict(mode='slide', crop_size=tuple(crop), stride=tuple(stride))
    one = {} if sidecar.threshold is None else dict(threshold=sidecar.threshold)
    return dict(
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
            file=file,
            in_channels=sidecar.channels,
            channels=1,
            num_classes=len(sidecar.classes),
            out_channels=1 if one else len(sidecar.classes),
            align_corners=sidecar.align_corners,
            **one,
        ),
    )
