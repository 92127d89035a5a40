"""Load released iLLaMA files and our own checkpoints into a backbone."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from illama_seg.checkpoints.checkpoint import Checkpoint, listed, open_checkpoint
from illama_seg.checkpoints.lora import is_lora
from illama_seg.checkpoints.report import LoadReport, log_report
from illama_seg.errors import UserError
from illama_seg.layers.architectures import ARCHITECTURES
from illama_seg.layers.pos_embed import resize_pos_embed

_PATCHES = 'patch_embed.proj.weight'
_QUERIES = 'query_offsets'


def load_released(source: Checkpoint | str | Path) -> dict[str, Tensor]:
    """Return the backbone's weights under our names, which are the released ones.

    Of an mmengine checkpoint of a whole segmentor or classifier, these are the keys
    under 'backbone.'; the averaged weights if the training had an EMAHook. The
    classifier of a released file is included as ``head.weight`` and ``head.bias``.

    Args:
        source: checkpoint, local path or http(s) URL.

    Returns:
        Key -> tensor on the CPU, in the dtype of the file.

    Raises:
        MissingFileError, ConnectionError, UserError: see :func:`open_checkpoint`.
    """
    # A copy: a mapped tensor would crash the process once the file is overwritten.
    weights = open_checkpoint(source).backbone
    return {key: value.clone() for key, value in weights.items()}


def load_into_backbone(
    backbone: nn.Module,
    source: Checkpoint | str | Path,
    logger: logging.Logger | None = None,
    without: str = 'model.backbone.init_cfg=None',
) -> LoadReport:
    """Load a checkpoint into a backbone, at any resolution, and report on every key.

    Weights of the patches that were trained on RGB are adapted to another number of
    channels, see :func:`adapt_channels`.
    The positional embedding is resized to ``backbone.grid_size``, from the grid noted
    in our own .pth files, else from a square one; tensors are cast to the dtype of
    the parameters. A classifier (``head``) or queries of another number are left out.
    Logs the report; missing keys, unexpected keys and a classifier that is left out
    are also logged as warnings.

    Args:
        backbone: module with the parameter ``pos_embed`` and the attributes
            ``grid_size``, (h, w) of the positional embedding, and ``cls_position``.
        source: checkpoint, local path or http(s) URL.
        logger: logger of the report; 'illama_seg' by default.
        without: setting that trains from scratch, for the messages.

    Raises:
        MissingFileError, ConnectionError, UserError: see :func:`open_checkpoint`.
        UserError: if the file holds no key of the backbone, or is of another size.
    """
    checkpoint = open_checkpoint(source)
    report = LoadReport(str(checkpoint), ignored=checkpoint.heads)
    weights = sort_keys(checkpoint.backbone, checkpoint.grid, backbone, report, without)
    backbone.load_state_dict(weights, strict=False)
    log_report(report, logger or logging.getLogger('illama_seg'))
    return report


def sort_keys(
    weights: dict[str, Tensor],
    grid: tuple[int, int] | None,
    backbone: nn.Module,
    report: LoadReport,
    without: str,
) -> dict[str, Tensor]:
    """Return the weights that fit a backbone, and sort all keys into the report.

    Args:
        weights: key -> tensor; ``pos_embed`` is replaced by the resized one.
        grid: (h, w) of ``pos_embed``, where it is known.
        backbone: see :func:`load_into_backbone`.
        report: of this checkpoint.
        without: see :func:`load_into_backbone`.

    Raises:
        UserError: see :func:`load_into_backbone`.
    """
    target = backbone.state_dict()
    if weights.keys().isdisjoint(target):
        raise UserError(
            f'{report.source} holds no key of the {report.part}.\n  first keys found: '
            f'{listed(weights)}\n  first keys expected: {listed(target)}\n'
            f'To train from scratch, set {without}'
        )
    if 'pos_embed' in weights and 'pos_embed' in target:
        _fit_pos_embed(weights, grid, target['pos_embed'], backbone, report)
    if _PATCHES in weights and _PATCHES in target:
        _fit_channels(weights, target[_PATCHES], report)
    for key, value in weights.items():
        if key not in target:
            unused = _is_not_built(key, target)
            (report.ignored if unused else report.unexpected).append(key)
        elif target[key].is_floating_point() and not value.is_floating_point():
            raise UserError(
                f'{report.source} holds {key} in 8-bit integers: expected a '
                f'checkpoint in float. To train from scratch, set {without}'
            )
        elif value.shape == target[key].shape:
            report.matched.append(key)
        else:
            shapes = tuple(value.shape), tuple(target[key].shape)
            of_labels = key.startswith(('head.', _QUERIES))
            left_out = of_labels and value.shape[1:] == shapes[1][1:]
            (report.left_out if left_out else report.mismatched).append((key, *shapes))
    # Adapters of a model that starts from weights without any do nothing at first;
    # queries start as class tokens.
    new = () if any(map(is_lora, weights)) else filter(is_lora, target)
    known = {*weights, *new, _QUERIES}
    report.missing = [key for key in target if key not in known]
    if any(map(is_lora, report.unexpected)):
        raise UserError(
            f'{report.source} holds LoRA adapters, which the model has no place for: '
            'merge them into the weights (convert_checkpoint with merge_lora=True), '
            'or set model.backbone.lora as in its training'
        )
    if report.mismatched:
        text = _explain_mismatch(report, weights, target)
        raise UserError(f'{text}\nTo train from scratch, set {without}')
    return {key: weights[key] for key in report.matched}


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the weights of a convolution of RGB to images of other channels, as timm.

    One channel gets the sum over RGB: a grey image gives what it would give as three
    equal channels. More get the weights of R, G, B, R, ... times 3 / channels: equal
    channels give the same sum.

    Args:
        weight: (dims, 3, P, P).
        channels: number of channels.

    Returns:
        (dims, channels, P, P), of the same dtype.
    """
    values = weight.float()
    if channels == 1:
        values = values.sum(1, keepdim=True)
    else:
        repeated = values.repeat(1, math.ceil(channels / 3), 1, 1)
        values = repeated[:, :channels] * (3 / channels)
    return values.to(weight.dtype)


def _fit_channels(
    weights: dict[str, Tensor], expected: Tensor, report: LoadReport
) -> None:
    old, new = tuple(weights[_PATCHES].shape), tuple(expected.shape)
    if (
        len(old) == 4
        and old[1] == 3 != new[1]
        and (old[0], *old[2:])
        == (
            new[0],
            *new[2:],
        )
    ):
        weights[_PATCHES] = adapt_channels(weights[_PATCHES], new[1])
        report.adapted.append((_PATCHES, old, new))


def _fit_pos_embed(
    weights: dict[str, Tensor],
    noted: tuple[int, int] | None,
    expected: Tensor,
    backbone: nn.Module,
    report: LoadReport,
) -> None:
    pos_embed = weights['pos_embed']
    old, new = tuple(pos_embed.shape), tuple(expected.shape)
    if len(old) != 3 or old[::2] != new[::2] or old[1] < 2:
        return
    grid_size: Any = getattr(backbone, 'grid_size', None)
    if grid_size is None:  # a backbone of another package
        return
    new_grid, num_patches = tuple(grid_size), old[1] - 1
    side = math.isqrt(num_patches)
    by_columns = getattr(backbone, 'pos_axes', 'grid') == 'columns'
    if noted:
        grid = noted
    elif old == new and by_columns:
        grid = new_grid
    elif side * side == num_patches:  # as all released files
        grid = side, side
    elif old == new:  # nothing says that the shape is another one
        grid = new_grid
    else:
        raise UserError(
            f'{report.source}: pos_embed has {num_patches} patch positions, which make '
            f'no square grid, so it cannot be resized to the {new[1] - 1} of the '
            'model. The .pth of a training notes its grid; without that note set '
            'model.backbone.img_size to the size it was trained at'
        )
    if by_columns and grid[0] > 1:
        patches, class_slot = pos_embed[:, :-1], pos_embed[:, -1:]
        rows = patches.float().unflatten(1, grid).mean(1)
        pos_embed, grid = torch.cat([rows, class_slot.float()], 1), (1, grid[1])
        weights['pos_embed'] = pos_embed
        report.resized.append(('pos_embed', old, tuple(pos_embed.shape)))
    if grid != new_grid:
        cls_position: Any = backbone.cls_position
        weights['pos_embed'] = resize_pos_embed(
            pos_embed.float(), grid, new_grid, cls_position
        )
        report.resized.append(('pos_embed', old, new))


def _is_not_built(key: str, target: Mapping[str, Tensor]) -> bool:
    """Return True for a released file's key that the model's options leave out.

    Such keys are the classifier, the queries, the final norm (with feature maps as
    output) and the blocks after the last output.
    """
    if key.startswith('blocks.'):
        index = key.split('.')[1]
        return index.isdecimal() and int(index) >= _num_blocks(target)
    if key.startswith('norm.'):
        return 'norm.weight' not in target
    return key.startswith(('head.', _QUERIES))


def _explain_mismatch(
    report: LoadReport, weights: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> str:
    key, old, new = report.mismatched[0]
    lines = [
        f'{report.source} does not fit the model: {key} is {old} in the file and {new} '
        f'in the model ({len(report.mismatched)} such keys).'
    ]
    gated, wants_gate = (
        any(key.endswith('mlp.fc3.weight') for key in of) for of in (weights, target)
    )
    if is_lora(key):
        lines.append('Set model.backbone.lora.r as in its training.')
    elif gated and not wants_gate:
        lines.append(
            "The file has mlp.fc3, iLLaMA's; the model has ffn='mlp': set "
            'model.backbone.ffn=swiglu'
        )
    elif wants_gate and not gated:
        lines.append('The file has no mlp.fc3, so it is no iLLaMA: an ordinary ViT?')
    elif _width(weights) != _width(target):
        lines.append(
            f'The file looks like {_size(weights)}; the model is {_size(target)}. Use '
            'a checkpoint of the same size, or set model.backbone.arch, and the '
            'channels of neck and heads, to those of the file.'
        )
    else:
        lines.append(
            f'Both look like {_size(target)}: set patch_size, in_channels, ffn, norm, '
            'with_pos_embed of model.backbone to those of the file, or use another '
            'checkpoint.'
        )
    return '\n'.join(lines)


def _width(weights: Mapping[str, Tensor]) -> int:
    for key in ('cls_token', 'pos_embed', 'blocks.0.norm1.weight'):
        if key in weights:
            return weights[key].shape[-1]
    return 0


def _num_blocks(weights: Mapping[str, Tensor]) -> int:
    return len({key.split('.')[1] for key in weights if key.startswith('blocks.')})


def _size(weights: Mapping[str, Tensor]) -> str:
    width, num_blocks = _width(weights), _num_blocks(weights)
    # A model may stop at the last block that is read, so it may have fewer blocks.
    label = 'an iLLaMA of custom size'
    for name, sizes in ARCHITECTURES.items():
        if sizes['embed_dims'] == width and num_blocks <= sizes['num_layers']:
            label = f'iLLaMA-{name.title()}'
    return f'{label} ({width} wide, {num_blocks} blocks)'
