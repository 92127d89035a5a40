"""Backbone and head that classify images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from torch import Tensor

from illama_seg.checkpoints import Checkpoint, load_into_backbone, open_checkpoint
from illama_seg.errors import UserError
from illama_seg.pretrain.structures import DataSample


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """Image classifier with mmpretrain's structure and its three modes.

    Args:
        backbone: config of a backbone that returns the class token.
        head: config of a head over its channels.
        data_preprocessor: config; ``ClsDataPreprocessor`` by default, which gets the
            head's number of classes.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` loads a released
            .pth or our own checkpoint; a classifier of another number of classes is
            left out. The backbone's own ``init_cfg`` loads the backbone only.

    Raises:
        UserError: if head and backbone do not fit each other.
    """

    _is_init: bool

    def __init__(
        self,
        backbone: dict,
        head: dict,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        preprocessor = dict(data_preprocessor or dict(type='ClsDataPreprocessor'))
        if preprocessor['type'] == 'ClsDataPreprocessor':
            preprocessor.setdefault('num_classes', head['num_classes'])
        super().__init__(preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(head)
        out_type = getattr(self.backbone, 'out_type', 'cls_token')
        if out_type != 'cls_token':
            raise UserError(
                f'model.backbone.out_type={out_type!r}: expected the class token, '
                "'cls_token'"
            )
        channels, taken = self.backbone.embed_dims, self.head.in_channels
        if channels != taken:
            raise UserError(
                f'model.head.in_channels={taken}, but the backbone has {channels} '
                'channels'
            )
        if init_cfg is not None and (
            init_cfg.get('type') != 'Pretrained' or not init_cfg.get('checkpoint')
        ):
            raise UserError(
                f'ImageClassifier init_cfg={init_cfg}: expected None or '
                "dict(type='Pretrained', checkpoint=PATH_OR_URL)"
            )

    def init_weights(self) -> None:
        """Initialise backbone and head, or load both; log what was left out.

        Raises:
            MissingFileError: if there is no such file.
            UserError: if the checkpoint does not fit the backbone or is not safe.
        """
        if self._is_init:
            return
        self.backbone.init_weights()
        self.head.init_weights()
        if self.init_cfg is not None:
            logger = MMLogger.get_current_instance()
            checkpoint = open_checkpoint(self.init_cfg['checkpoint'])
            report = load_into_backbone(
                self.backbone, checkpoint, logger, 'model.init_cfg=None'
            )
            self.backbone.load_report = report
            self._load_head(checkpoint, logger)
        self._is_init = True

    def _load_head(self, checkpoint: Checkpoint, logger: Any) -> None:
        source, weights = checkpoint.source, checkpoint.classifier
        own = self.head.fc.state_dict()
        if not weights:
            logger.warning('%s has no classifier: the head starts anew', source)
        elif weights['weight'].shape != own['weight'].shape:
            logger.warning(
                '%s classifies %d classes from %d channels, the model %d from %d: its '
                'head is left out, and starts anew',
                source,
                *weights['weight'].shape,
                *own['weight'].shape,
            )
        else:
            self.head.fc.load_state_dict(weights)
            logger.info('%s: loaded the head of %d classes', source, len(own['bias']))

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[DataSample] | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Run the model on preprocessed images.

        Args:
            inputs: (B, 3, H, W).
            data_samples: annotations; required for 'loss'.
            mode: 'loss', 'predict' or 'tensor'.

        Returns:
            'loss': dict of the loss; 'predict': :class:`DataSample` of each image;
            'tensor': logits (B, num_classes).

        Raises:
            UserError: for an unknown mode.
        """
        if mode not in ('loss', 'predict', 'tensor'):
            raise UserError(f"mode={mode!r}: expected 'loss', 'predict' or 'tensor'")
        feats = self.backbone(inputs)
        if mode == 'loss':
            return self.head.loss(feats, data_samples)
        if mode == 'predict':
            return self.head.predict(feats, data_samples)
        return self.head(feats)
