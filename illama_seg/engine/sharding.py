"""Training with the weights spread over the processes: PyTorch's FSDP2.

With plain data parallel training (DDP) every process holds the weights, their gradients
and both moments of AdamW, 16 bytes to a parameter; here one part of each.
"""

from __future__ import annotations

from typing import Any

from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.model import convert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from illama_seg.errors import UserError


@RUNNERS.register_module()
class ShardedRunner(Runner):
    """mmengine's runner, with weights, gradients and optimiser sharded by FSDP2.

    A block's weights are gathered while it runs; all others, the heads', while the
    model runs. Each process first holds the whole model, once. The losses are those of
    DDP to rounding, and so are the checkpoints, plain and whole: either resumes from
    the other's, and every tool reads both. ``state_dict()`` of model and optimiser is
    whole, on the CPU, and a call for all processes at once. Where only one process
    trains it is mmengine's runner.

    Raises:
        UserError: the config has an ``EMAHook``, which copies the model, or the
            backbone has adapters (LoRA).
    """

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Initialise the weights, the same in all processes, then shard them."""
        if not self.distributed:
            return super().wrap_model(None, model)
        if getattr(getattr(model, 'backbone', None), 'lora', None) is not None:
            raise UserError(
                'LoRA has few weights to train, and is not sharded: train with '
                'runner_type=Runner'
            )
        model = model.to(get_device())
        if self.cfg.get('sync_bn') is not None:
            model = convert_sync_batchnorm(model, self.cfg.sync_bn)
        self.model = model
        super()._init_model_weights()
        shard(model)
        held, total = count_held(model), sum(p.numel() for p in model.parameters())
        self.logger.info(
            f'weights sharded over {get_world_size()} processes: this one holds '
            f'{held:,} of {total:,} parameters'
        )
        return model

    def _init_model_weights(self) -> None:
        if not self.distributed:
            super()._init_model_weights()

    def register_hooks(self, *args: Any, **kwargs: Any) -> None:
        """Register the config's hooks, and one that gathers the weights to validate."""
        super().register_hooks(*args, **kwargs)
        if not self.distributed:
            return
        if any(isinstance(hook, EMAHook) for hook in self.hooks):
            raise UserError(
                'EMAHook copies the model, and a sharded one cannot be copied: take it '
                'out of default_hooks or custom_hooks, or train with runner_type=Runner'
            )
        self.register_hook(GatherHook())

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimiser, whose states are whole where they leave it."""
        built = super().build_optim_wrapper(optim_wrapper)
        if self.distributed and not isinstance(optim_wrapper, OptimWrapper):
            built.optimizer.register_state_dict_post_hook(_gather_states)
            built.optimizer.register_load_state_dict_pre_hook(_shard_states)
        return built

    def save_checkpoint(self, *args, save_optimizer: bool = True, **kwargs) -> None:
        """Save on the main process what all of them hold."""
        if self.rank == 0 or not self.distributed:
            super().save_checkpoint(*args, save_optimizer=save_optimizer, **kwargs)
            return
        # As the main process does, in its order.
        self.model.state_dict()
        if save_optimizer:
            self.optim_wrapper.state_dict()

    def resume(self, *args: Any, map_location: Any = 'cpu', **kwargs: Any) -> None:
        """Resume; the whole checkpoint is kept out of the device's memory."""
        super().resume(*args, map_location=map_location, **kwargs)


class GatherHook(Hook):
    """Hold the whole weights during a validation or test.

    Windows slide over images of different sizes, so the processes run the model
    different numbers of times, and none can wait for the others in it.
    """

    priority = 'LOWEST'

    def before_val_epoch(self, runner: Any) -> None:
        """Gather."""
        self._set(runner, whole=True)

    def after_val_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Shard again."""
        self._set(runner, whole=False)

    before_test_epoch, after_test_epoch = before_val_epoch, after_val_epoch

    def _set(self, runner: Any, whole: bool) -> None:
        for module in runner.model.modules():
            if not isinstance(module, FSDPModule):
                continue
            if module is not runner.model:
                module.set_reshard_after_forward(not whole, recurse=False)
            if whole:
                module.unshard()
            else:
                module.reshard()


def shard(model: nn.Module) -> None:
    """Shard a model in place: the blocks of its backbone each, all else together.

    A module that is sharded by itself must be run by calling it, which mmseg's heads
    are not. The state dict gives and takes whole tensors.
    """
    blocks: Any = getattr(getattr(model, 'backbone', None), 'blocks', ())
    for block in blocks:
        fully_shard(block)
    fully_shard(model)
    model.register_state_dict_post_hook(_gather_weights)
    model.register_load_state_dict_pre_hook(_shard_weights)


def count_held(model: nn.Module) -> int:
    """Numbers in the parameters that this process holds."""
    return sum(
        (p.to_local() if isinstance(p, DTensor) else p).numel()
        for p in model.parameters()
    )


def _is_sharded(value: Any) -> bool:
    return isinstance(value, DTensor)


def _whole(value: Any) -> Tensor:
    return value.detach().full_tensor().cpu()


def _part(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(
        value.to(like.device_mesh.device_type), like.device_mesh, like.placements
    )


def _gather_weights(module: nn.Module, state: dict, prefix: str, meta: dict) -> None:
    for key, value in state.items():
        if _is_sharded(value):
            state[key] = _whole(value)


def _shard_weights(module: nn.Module, state: dict, prefix: str, *args: Any) -> None:
    for key, parameter in module.named_parameters(prefix.rstrip('.')):
        value = state.get(key)
        if value is not None and value.shape == parameter.shape:
            state[key] = _part(value, parameter)


def _gather_states(optimizer: Optimizer, state: dict) -> dict:
    return apply_to(state, _is_sharded, _whole)


def _shard_states(optimizer: Optimizer, state: dict) -> dict:
    saved = (i for group in state['param_groups'] for i in group['params'])
    own = (p for group in optimizer.param_groups for p in group['params'])
    states = dict(state['state'])
    for index, parameter in zip(saved, own, strict=True):
        states[index] = {
            key: _part(value, parameter)
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for key, value in states.get(index, {}).items()
        }
    return dict(state, state=states)
