"""Initial weights of the backbone: drawn, or a checkpoint's."""

from typing import Any

from mmengine.logging import MMLogger
from torch import nn

from illama_seg.checkpoints import load_into_backbone
from illama_seg.errors import UserError
from illama_seg.layers.architectures import INIT_STD


def draw_weights(backbone: Any) -> None:
    """Draw truncated normal weights, and set biases to zero."""
    tokens = backbone.cls_token, backbone.pos_embed, backbone.query_offsets
    for parameter in tokens:
        if parameter is not None:
            nn.init.trunc_normal_(parameter, std=INIT_STD)
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Linear) and '.lora_' not in name:
            nn.init.trunc_normal_(module.weight, std=INIT_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def load_init_cfg(backbone: Any) -> None:
    """Load the checkpoints of ``init_cfg``, with a report.

    Raises:
        UserError: if it is of another form, or a checkpoint does not fit.
    """
    init_cfgs = backbone.init_cfg or []
    for init_cfg in init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]:
        known = isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained'
        if not known or 'checkpoint' not in init_cfg:
            raise UserError(
                f'ILLaMA init_cfg={init_cfg}: expected None or '
                "dict(type='Pretrained', checkpoint=PATH_OR_URL)"
            )
        logger = MMLogger.get_current_instance()
        source = init_cfg['checkpoint']
        backbone.load_report = load_into_backbone(backbone, source, logger)
