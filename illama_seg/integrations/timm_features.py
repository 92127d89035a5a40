"""Maps of timm's models for mmseg's heads: ``dict(type='TimmFeatures', ...)``.

mmseg's own ``TIMMBackbone`` hands on Swin's maps with the channels last, takes no image
that is not whole patches, and reads a file of weights without saying what fitted.
"""

import inspect
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import timm
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from illama_seg.checkpoints import LoadReport, open_checkpoint
from illama_seg.checkpoints.loading import sort_keys
from illama_seg.checkpoints.report import log_report
from illama_seg.errors import UserError

# The first one that a model knows lets it take images of any size.
_ANY_SIZE: tuple[dict[str, Any], ...] = (
    dict(dynamic_img_size=True),
    dict(strict_img_size=False),
    {},
)
_OURS = 'timm_model.'  # prefix of the keys in checkpoints of a training
_SCRATCH = 'model.backbone.init_cfg=None'


@MODELS.register_module()
class TimmFeatures(BaseModule):
    """Maps of some of the blocks or stages of a model of timm.

    Nothing is downloaded. Blocks after the last map, the final norm and the classifier
    are not built; the maps have no norm.

    Args:
        model_name: of ``timm.list_models()``.
        out_indices: blocks of a plain transformer, or stages, that are handed on:
            increasing, counted from 0, negative from the end.
        img_size: side in pixels of a learnable positional embedding, a multiple of the
            patch size; None for timm's own. Images of any size are taken.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)``; the file is timm's, one
            that timm converts, or a checkpoint of a segmentor with this backbone.

    Attributes:
        channels: of each map.
        strides: of each map, in pixels.

    Raises:
        UserError: for an unknown name, or an argument that the model does not take.
    """

    _is_init: bool

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        *,
        img_size: int | None = None,
        drop_path_rate: float = 0.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.model_name = model_name
        given = dict(img_size=img_size, drop_path_rate=drop_path_rate)
        options = {key: value for key, value in given.items() if value}
        self.timm_model = _build(model_name, options)
        levels = self._levels()
        self.out_indices = _resolve(model_name, out_indices, len(levels))
        self.channels = [levels[i]['num_chs'] for i in self.out_indices]
        self.strides = [int(levels[i]['reduction']) for i in self.out_indices]
        self.timm_model.prune_intermediate_layers(
            [*self.out_indices], prune_norm=True, prune_head=True
        )
        # Modules that are never run would get no gradient, which DDP refuses.
        for name in ('fc_norm', 'attn_pool'):
            if hasattr(self.timm_model, name):
                setattr(self.timm_model, name, nn.Identity())

    def _levels(self) -> list[dict[str, Any]]:
        info = getattr(self.timm_model, 'feature_info', None)
        needed = 'forward_intermediates', 'prune_intermediate_layers'
        if not info or not all(hasattr(self.timm_model, name) for name in needed):
            raise UserError(
                f'timm {timm.__version__} gives no maps of {self.model_name}: expected '
                'a model with forward_intermediates, such as convnext_tiny',
                model_name=self.model_name,
            )
        return info

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Run the model on images of any size.

        Args:
            x: (B, 3, H, W). Padded with zeros, at the right and the bottom, to whole
                pixels of the coarsest map.

        Returns:
            One map (B, C, ceil(H / stride), ceil(W / stride)) for each of
            ``out_indices``, with its entry of ``channels`` and of ``strides``.

        Raises:
            UserError: if ``x`` is not a batch of images.
        """
        if x.ndim != 4 or x.size(1) != 3 or 0 in x.shape[2:]:
            raise UserError(
                'TimmFeatures takes images (B, 3, H, W) with H, W >= 1, got '
                f'{tuple(x.shape)}'
            )
        height, width = x.shape[2:]
        coarsest = max(self.strides)
        pad_h, pad_w = (_ceil(side, coarsest) * coarsest - side for side in x.shape[2:])
        if torch.compiler.is_compiling() or pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h))
        maps = self.timm_model.forward_intermediates(
            x,
            indices=[*self.out_indices],
            output_fmt='NCHW',
            intermediates_only=True,
        )
        return tuple(
            level[:, :, : _ceil(height, stride), : _ceil(width, stride)]
            for level, stride in zip(maps, self.strides, strict=True)
        )

    def init_weights(self) -> None:
        """Keep timm's random weights; or load a checkpoint, with a report.

        Raises:
            UserError: if the checkpoint holds no key of the model, is of another
                model, or cannot be read safely.
            FileNotFoundError: if there is no such file.
        """
        if self._is_init:
            return
        if self.init_cfg:
            source = self.init_cfg.get('checkpoint')
            if self.init_cfg.get('type') != 'Pretrained' or not source:
                raise UserError(
                    f'TimmFeatures init_cfg={self.init_cfg}: expected None or '
                    "dict(type='Pretrained', checkpoint=PATH_OR_URL)"
                )
            self.load_report = self._load(source)
        self._is_init = True

    def _load(self, source: str) -> LoadReport:
        """Load a file of any resolution that timm knows how to fit to the model."""
        checkpoint = open_checkpoint(source)
        found = {
            key.removeprefix(_OURS): value for key, value in checkpoint.backbone.items()
        }
        report = LoadReport(str(checkpoint), ignored=checkpoint.heads)
        weights = _converted(found, self.timm_model, self.model_name, report)
        target = self.timm_model.state_dict()
        other = [
            f'{key} is {tuple(value.shape)} in the file and '
            f'{tuple(target[key].shape)} in the model'
            for key, value in weights.items()
            if key in target and value.shape != target[key].shape
        ]
        if other:
            raise UserError(
                f'{report.source} does not fit {self.model_name}: {other[0]} '
                f'({len(other)} such keys): set model.backbone.model_name to the model '
                f'of the file. To train from scratch, set {_SCRATCH}'
            )
        fitting = sort_keys(weights, None, self.timm_model, report, _SCRATCH)
        self.timm_model.load_state_dict(fitting, strict=False)
        log_report(report, MMLogger.get_current_instance())
        return report


def _ceil(size: int, step: int) -> int:
    return (size + step - 1) // step  # torch.compile knows no -size // step


def _build(model_name: str, options: dict[str, Any]) -> Any:
    if not timm.is_model(model_name):
        near = get_close_matches(model_name, timm.list_models(), n=4)
        raise UserError(
            f'timm {timm.__version__} has no such model; the nearest: '
            f'{", ".join(near) or "none"}',
            model_name=model_name,
        )
    for any_size in _ANY_SIZE:
        try:
            return timm.create_model(
                model_name, pretrained=False, num_classes=0, **options, **any_size
            )
        except TypeError as error:
            unknown = [key for key in (*any_size, *options) if repr(key) in str(error)]
            if not unknown:
                raise
            if unknown[0] in options:
                raise UserError(
                    f'{model_name} of timm takes no {unknown[0]}: leave it out',
                    **{unknown[0]: options[unknown[0]]},
                ) from error
    raise AssertionError('the last choice has no option')


def _resolve(
    model_name: str, out_indices: Iterable[int], num_levels: int
) -> tuple[int, ...]:
    wanted = tuple(out_indices)
    indices = tuple(i + num_levels if i < 0 else i for i in wanted)
    in_range = all(0 <= i < num_levels for i in indices)
    if not indices or not in_range or indices != tuple(sorted(set(indices))):
        raise UserError(
            f'{model_name} has {num_levels} blocks or stages: expected increasing '
            f'numbers from 0 to {num_levels - 1} (negative ones count from the end)',
            out_indices=wanted,
        )
    return indices


def _converted(
    weights: dict[str, Tensor], model: nn.Module, model_name: str, report: LoadReport
) -> dict[str, Tensor]:
    """Fit names and resolution of a file to a model, as timm does for its own files."""
    convert: Any = getattr(
        sys.modules[type(model).__module__], 'checkpoint_filter_fn', None
    )
    if convert is None:
        return weights
    options = {}
    if 'adapt_layer_scale' in inspect.signature(convert).parameters:
        options['adapt_layer_scale'] = True  # DeiT III's original names
    before = {key: tuple(value.shape) for key, value in weights.items()}
    try:
        converted = convert(weights, model, **options)
    except Exception as error:  # a file of another model fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'{report.source} does not fit {model_name}: {reason}. Use a file of this '
            f'model; to train from scratch, set {_SCRATCH}'
        ) from error
    for key, value in converted.items():
        shape = tuple(value.shape)
        if before.get(key, shape) != shape:
            report.resized.append((key, before[key], shape))
    return converted
