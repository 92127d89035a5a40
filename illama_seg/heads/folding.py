"""Fewer operations at inference: linear maps in a row become one, exactly."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead
from mmseg.models.necks.featurepyramid import Feature2Pyramid
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_for_inference(model: nn.Module) -> nn.Module:
    """Fold batch normalisations and 1x1 convolutions into the convolutions before.

    Outputs stay equal to rounding. The state dict changes: fold after loading weights,
    and only for inference. Folded are, in any mmseg segmentor, where a convolution has
    neither groups nor hooks:

    - a batch normalisation after a convolution (mmcv's ``ConvModule``) or after a
      transposed convolution (``Feature2Pyramid``),
    - the 1x1 lateral convolutions of ``UPerHead`` into the transposed convolutions that
      ``Feature2Pyramid`` ends with.

    Args:
        model: segmentor in eval mode; changed in place.

    Returns:
        The same model.
    """
    for module in model.modules():
        if isinstance(module, ConvModule):
            _fold_norm(module)
        elif isinstance(module, nn.Sequential):
            _fold_norms(module)
    _fold_laterals(model)
    return model


def _fold_norm(module: ConvModule) -> None:
    order = module.order
    if (
        _is_bare(module.conv, nn.Conv2d)
        and module.with_norm
        and order.index('norm') == order.index('conv') + 1
        and _has_statistics(module.norm)
    ):
        module.conv = fuse_conv_bn_eval(module.conv, module.norm)
        setattr(module, module.norm_name, nn.Identity())


def _fold_norms(layers: nn.Sequential) -> None:
    """Fold normalisations after transposed convolutions."""
    pairs: Any = itertools.pairwise(layers)
    for index, (conv, norm) in enumerate(pairs):
        if _is_bare(conv, nn.ConvTranspose2d) and _has_statistics(norm):
            layers[index] = fuse_conv_bn_eval(conv, norm, transpose=True)
            layers[index + 1] = nn.Identity()


def _is_bare(conv: nn.Module, kind: type) -> bool:
    """Return whether a convolution is what its weights say: no groups, no hooks.

    Hooks belong to spectral norm, weight norm and pruning, which make the weights anew.
    """
    if type(conv) is not kind or conv._forward_pre_hooks or conv._forward_hooks:
        return False
    return bool(conv.groups == 1)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _fold_laterals(model: Any) -> None:
    neck, head = getattr(model, 'neck', None), getattr(model, 'decode_head', None)
    if not isinstance(neck, Feature2Pyramid) or not isinstance(head, UPerHead):
        return
    # By position, whatever the order of its rescales.
    names = ('upsample_4x', 'upsample_2x') if neck.upsample_4x else ('upsample_2x',)
    ends = dict(enumerate(getattr(neck, name, None) for name in names))
    taken = list(head.in_index)
    for index, lateral in zip(taken, head.lateral_convs, strict=False):
        end = ends.get(index)
        conv = lateral.conv
        if (
            end is None
            or taken.count(index) > 1
            or not _is_bare(end[-1], nn.ConvTranspose2d)
            or not _is_bare(conv, nn.Conv2d)
            or conv.kernel_size != (1, 1)
        ):
            continue
        end[-1] = _joined(end[-1], conv)
        lateral.conv = nn.Identity()


@torch.no_grad()
def _joined(first: nn.ConvTranspose2d, second: nn.Conv2d) -> nn.ConvTranspose2d:
    """Return the transposed convolution that equals it and a 1x1 convolution."""
    matrix = second.weight.flatten(1)  # (O, C)
    joined = nn.ConvTranspose2d(
        first.in_channels,
        second.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        device=matrix.device,
        dtype=matrix.dtype,
    ).requires_grad_(False)
    joined.weight.copy_(torch.einsum('icyx,oc->ioyx', first.weight, matrix))
    bias = second.bias if second.bias is not None else matrix.new_zeros(len(matrix))
    if first.bias is not None:
        bias = bias + matrix @ first.bias
    joined.bias = nn.Parameter(bias, requires_grad=False)
    return joined.eval()
