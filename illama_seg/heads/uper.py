"""UperNet's decode head with fewer products, exactly.

UperNet: arXiv 1807.10221. Its two costliest convolutions read maps that were only
enlarged; :func:`illama_seg.layers.conv_of_enlarged` computes them at the maps' own
resolution. For iLLaMA-Base at 512x512 the whole segmentor takes 351 G
multiply-accumulates, without attention products, where mmseg's head takes 585.6 G
(Table 10 of arXiv 2404.06773).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from mmseg.models.decode_heads import UPerHead
from torch import Tensor, nn

from illama_seg.layers import conv_of_enlarged


@MODELS.register_module()
class EfficientUPerHead(UPerHead):
    """Compute mmseg's ``UPerHead`` without convolving enlarged maps.

    Arguments, parameter names, outputs and gradients are those of ``UPerHead``, so
    checkpoints fit both. The saving needs plain 3x3 convolutions; any other kind, such
    as one with simulated 8-bit weights, is computed as mmseg does.

    Attributes:
        enlarge_first: compute as mmseg does, to count or to compare; False by default.
    """

    enlarge_first = False

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Pool the last map at several scales and merge the results.

        Args:
            inputs: maps of all levels; the last one is (B, C, h, w).

        Returns:
            (B, channels, h, w).
        """
        x = inputs[-1]
        pooled = [branch(x) for branch in self.psp_modules]
        return self._merge(self.bottleneck, [x, *pooled])

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        inputs = self._transform_inputs(inputs)
        if inputs[0].device.type == 'cpu' and not torch.is_grad_enabled():
            # The layout of the small products: else they would be copied into it.
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
        levels = [
            lateral(x) for lateral, x in zip(self.lateral_convs, inputs, strict=False)
        ]
        levels.append(self.psp_forward(inputs))
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + self._enlarged(levels[fine + 1], levels[fine])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, levels, strict=False)]
        return self._merge(self.fpn_bottleneck, [*outs, levels[-1]])

    def _merge(self, module: ConvModule, maps: Sequence[Tensor]) -> Tensor:
        """Apply a module to the concatenation of maps enlarged to the first's size."""
        conv = module.conv
        if self.enlarge_first or torch.jit.is_tracing() or not _is_plain(module):
            return module(torch.cat([self._enlarged(x, maps[0]) for x in maps], dim=1))
        x = conv_of_enlarged(maps, conv.weight, conv.bias, self.align_corners)
        if module.with_norm:
            x = module.norm(x)
        return module.activate(x) if module.with_activation else x

    def _enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        size = like.shape[-2:]
        if x.shape[-2:] == size:
            return x
        return F.interpolate(x, size, mode='bilinear', align_corners=self.align_corners)


def _is_plain(module: ConvModule) -> bool:
    conv = module.conv
    return (
        type(conv) is nn.Conv2d
        and (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and (conv.groups, conv.padding, conv.padding_mode) == (1, (1, 1), 'zeros')
        and module.order[0] == 'conv'
        and module.order.index('norm') < module.order.index('act')
        and not module.with_spectral_norm
        and not any(map(_has_hooks, (module, conv)))
    )


def _has_hooks(module: nn.Module) -> bool:
    """Return whether hooks wait for a call: they see its input, or make weights."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
