"""Mixed precision by measurement, and layer-wise learning rate decay."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import broadcast_object_list
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import Tensor, nn

from illama_seg.errors import UserError
from illama_seg.machine.precision import (
    Precision,
    check_precision,
    choose_precision,
    given_precision,
)


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Run the forward pass in half precision where that is faster; on a CPU or a GPU.

    The weights stay float32. float16 has a loss scale. The choice is made once, at the
    first use, and all processes take the main one's. It is part of the optimiser's
    state: a resumed run keeps it.

    Args:
        optimizer: of float32 parameters.
        dtype: 'auto' to measure, see :func:`illama_seg.machine.choose_precision`, or
            'float32', 'bfloat16' or 'float16'.
        **kwargs: of mmengine's ``OptimWrapper``.

    Raises:
        UserError: for another ``dtype``.
    """

    def __init__(self, optimizer: Any, dtype: str = 'auto', **kwargs: Any) -> None:
        check_precision(dtype, 'optim_wrapper.dtype')
        super().__init__(optimizer, **kwargs)
        self.dtype = dtype
        self._resumed: str | None = None
        self._precision: Precision | None = None
        self._scaler_state: dict = {}

    @property
    def precision(self) -> Precision:
        """Precision that the training computes in, and the reason for it."""
        if self._precision is None:
            chosen = [choose_precision(self._device, self.dtype, self._resumed)]
            broadcast_object_list(chosen)
            self._precision = chosen[0]
        return self._precision

    @property
    def loss_scaler(self) -> torch.amp.GradScaler | None:
        """Scale of the loss in float16; None in other precisions, which need none."""
        return self._scaler if self.precision.name == 'float16' else None

    @functools.cached_property
    def _scaler(self) -> torch.amp.GradScaler:
        half = self.precision.name == 'float16'
        scaler = torch.amp.GradScaler(self._device, enabled=half)
        if half and self._scaler_state:
            scaler.load_state_dict(self._scaler_state)
        return scaler

    @property
    def _device(self) -> str:
        return self.optimizer.param_groups[0]['params'][0].device.type

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the device of the model."""
        chosen = self.precision
        half = chosen.name != 'float32'
        autocast = torch.autocast(self._device, chosen.dtype) if half else nullcontext()
        with super().optim_context(model), autocast:
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Differentiate the loss, scaled in float16."""
        super().backward(self._scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Clip the gradients and update the weights."""
        self._scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        self._scaler.step(self.optimizer, **kwargs)
        self._scaler.update()

    def state_dict(self) -> dict:
        """Return the optimiser's state with the precision and the loss scale."""
        state = super().state_dict() | dict(precision=self.precision.name)
        if self.loss_scaler is not None:
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`state_dict` or another optimiser wrapper returned."""
        state = dict(state_dict)
        self._resumed = state.pop('precision', None)
        self._scaler_state = state.pop('loss_scaler', {})
        self._precision = None
        self.__dict__.pop('_scaler', None)
        super().load_state_dict(state)


def training_precision(optim_wrapper: Any) -> Precision:
    """Precision that a training with an optimiser wrapper computes in, and the reason.

    The first call may measure, and is one for all processes at once.
    """
    if isinstance(optim_wrapper, AutocastOptimWrapper):
        return optim_wrapper.precision
    name = type(optim_wrapper).__name__
    if isinstance(optim_wrapper, AmpOptimWrapper):
        dtype = str(optim_wrapper.cast_dtype or torch.float16)[6:]
        return given_precision(dtype, f', by {name}')
    return given_precision(
        'float32', '; AutocastOptimWrapper takes half precision where faster'
    )


def steadier_settings(optim_wrapper: Any) -> str:
    """Settings for a training that diverged, as a message has them."""
    settings = 'a lower optim_wrapper.optimizer.lr, optim_wrapper.clip_grad.max_norm=1'
    if training_precision(optim_wrapper).name == 'float32':
        return settings
    return f'{settings}, or optim_wrapper.dtype=float32'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedKeysConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, in which all ``custom_keys`` of a parameter apply.

    Of the keys that a parameter's name contains, mmengine applies the longest only, and
    then no ``flat_decay_mult``. Here each multiplier is that of the longest key which
    has it: ``backbone=dict(lr_mult=0.1)`` reaches ``backbone.pos_embed`` beside
    ``pos_embed=dict(decay_mult=0.0)``, and ``flat_decay_mult`` still holds for vectors
    whose keys have no ``decay_mult``.
    """

    paramwise_cfg: dict[str, Any]

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper for ``model``."""
        model = getattr(model, 'module', model)
        keys = self.paramwise_cfg.get('custom_keys') or {}
        flat = self.paramwise_cfg.get('flat_decay_mult')
        merged: dict[str, dict] = {}
        for name, parameter in model.named_parameters():
            # mmengine looks for the keys in the name with a dot before it.
            found = sorted((k for k in keys if k in f'.{name}'), key=len)
            if not found:
                continue
            is_flat = parameter.ndim == 1 and flat is not None
            merged[name] = dict(decay_mult=flat) if is_flat else {}
            for key in found:
                merged[name].update(keys[key])
        if keys:
            self.paramwise_cfg = dict(self.paramwise_cfg, custom_keys=merged)
        return super().__call__(model)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(MergedKeysConstructor):
    """Learning rates that fall geometrically from the head to the patch embedding.

    A parameter of depth i out of n takes ``lr * layer_decay_rate ** (n - 1 - i)``. The
    depth is asked of the module's ``get_layer_depth(name, prefix)``; parameters outside
    such a module count as the last depth. All of ``paramwise_cfg``'s other keys
    (``custom_keys``, ``flat_decay_mult``, ...) do what they do in mmengine.

    Args (in ``paramwise_cfg``):
        layer_decay_rate: in (0, 1].

    Raises:
        UserError: if the rate is missing or out of range, or if no module of the model
            has ``get_layer_depth``.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimiser wrapper for ``model``."""
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if rate is None or not 0 < rate <= 1:
            raise UserError(
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
            raise UserError(
                'LayerDecayConstructor: no module of the model has get_layer_depth; '
                'set optim_wrapper.constructor=MergedKeysConstructor'
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
