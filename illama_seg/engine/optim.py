"""Optimiser wrapper in bfloat16 and layer-wise learning rate decay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Run the forward pass under bfloat16 autocast, on a CPU or a GPU.

    mmengine's ``AmpOptimWrapper`` refuses a CPU. bfloat16 has float32's range, so there
    is no loss scale to keep.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the device of the model."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall geometrically from the head to the patch embedding.

    A parameter of depth i out of n takes ``lr * layer_decay_rate ** (n - 1 - i)``. The
    depth is asked of the module's ``get_layer_depth(name, prefix)``; parameters outside
    such a module count as the last depth. All of ``paramwise_cfg``'s other keys
    (``custom_keys``, ``flat_decay_mult``, ...) do what they do in mmengine.

    Args (in ``paramwise_cfg``):
        layer_decay_rate: in (0, 1].

    Raises:
        ValueError: if the rate is missing or out of range, or if no module of the model
            has ``get_layer_depth``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper for ``model``."""
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if rate is None or not 0 < rate <= 1:
            raise ValueError(
                f'optim_wrapper.paramwise_cfg.layer_decay_rate={rate}: expected a '
                'number in (0, 1]; 1 decays nothing'
            )
        model = getattr(model, 'module', model)
        scopes = [
            (f'{name}.' if name else '', module)
            for name, module in model.named_modules()
            if hasattr(module, 'get_layer_depth')
        ]
        if not scopes:
            raise ValueError(
                'LayerDecayConstructor: no module of the model has get_layer_depth; '
                "use mmengine's default constructor (drop optim_wrapper.constructor)"
            )
        prefix, backbone = scopes[0]
        self._scales = {}
        for name, parameter in model.named_parameters():
            depth, num_depths = backbone.get_layer_depth(name, prefix)
            self._scales[id(parameter)] = rate ** (num_depths - 1 - depth)
        print_log(
            f'layer decay {rate}: learning rate {self.base_lr:.3g} in the head, '
            f'{self.base_lr * min(self._scales.values()):.3g} in the embeddings',
            logger='current',
        )
        return super().__call__(model)

    def add_params(
        self, params: list[dict], module: nn.Module, *args, **kwargs
    ) -> None:
        """Add the parameters as mmengine does, then scale each one's learning rate."""
        start = len(params)
        super().add_params(params, module, *args, **kwargs)
        for group in params[start:]:
            # The recursion comes here once for each level above a parameter.
            scale = self._scales.pop(id(group['params'][0]), None)
            if scale is not None:
                group['lr'] = group.get('lr', self.base_lr) * scale
