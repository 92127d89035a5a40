"""State of a training that a trial puts aside, and back as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from illama_seg.machine import choices


@contextmanager
def set_aside(runner: Runner) -> Iterator[None]:
    """Put a training back as it was, whatever a step and a validation change in it.

    Kept: weights, buffers and attributes of the model, gradients, random numbers, the
    optimiser wrapper's attributes, the message hub, and choices made by measurement.
    Meanwhile there are no gradients, no hook is called, and mmengine's loggers are
    silent. The optimiser's state is not kept: nothing may step.

    Args:
        runner: at the start of its training.
    """
    with ExitStack() as stack:
        stack.enter_context(random_numbers_kept())
        stack.enter_context(choices.unmeasured())
        stack.enter_context(model_kept(runner.model))
        stack.enter_context(contents_kept(map(vars, optim_wrappers(runner))))
        stack.enter_context(contents_kept(_message_hubs()))
        stack.enter_context(loggers_silent())
        hooks, runner._hooks = runner._hooks, []
        try:
            yield
        finally:
            runner._hooks = hooks
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()


def bare_model(runner: Runner) -> Any:
    """The model without its wrapper for several processes."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optim_wrappers(runner: Runner) -> list[Any]:
    """The runner's optimiser wrapper, or all of them."""
    wrapper: Any = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    return [*wrapper.values()] if several else [wrapper]


@contextmanager
def model_kept(model: nn.Module) -> Iterator[None]:
    """Keep a model's tensors, on the CPU, its modules' attributes and its gradients.

    Parameters too: some are set by the first forward pass, such as a quantiser's steps.
    """
    modules, parameters = [*model.modules()], [*model.parameters()]
    tensors = [_held(tensor) for tensor in (*parameters, *model.buffers())]
    copies = [tensor.to('cpu', copy=True) for tensor in tensors]
    gradients = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        with contents_kept(content for m in modules for content in _attributes(m)):
            try:
                yield
            finally:
                for module in modules:
                    if isinstance(module, FSDPModule):
                        module.reshard()
    finally:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient


def _held(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, detached."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _attributes(module: nn.Module) -> Iterator[dict]:
    own = vars(module)
    yield own
    yield from (own[key] for key in ('_parameters', '_buffers') if key in own)


@contextmanager
def contents_kept(dicts: Iterable[dict]) -> Iterator[None]:
    """Keep what is in dicts, not what is in their values."""
    kept = [(content, dict(content)) for content in dicts]
    try:
        yield
    finally:
        for content, before in kept:
            content.clear()
            content.update(before)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Keep the generators of Python, numpy and torch, on the CPU and this GPU."""
    python, arrays = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def loggers_silent() -> Iterator[None]:
    """Silence mmengine's loggers; `logging.disable` would stay in their caches."""
    loggers = [*MMLogger._instance_dict.values()]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _message_hubs() -> Iterator[dict]:
    for hub in MessageHub._instance_dict.values():
        yield from (hub._log_scalars, hub._runtime_info, hub._resumed_keys)
        yield from map(vars, hub._log_scalars.values())


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute as if there were no others, waiting for none of them."""
    if not torch.distributed.is_available():
        yield
        return
    real: Callable[[], bool] = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_initialized = real
