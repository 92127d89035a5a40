"""Rehearse a training before its first iteration, without a trace."""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

from illama_seg.engine.aside import alone, bare_model, optim_wrappers, set_aside
from illama_seg.engine.long_runs.loops import images_of_batch
from illama_seg.engine.optim import training_precision
from illama_seg.engine.sizes import misfit_labels, unequal_sizes
from illama_seg.errors import UserError

STEP, VALIDATION, METRIC, RULE = (
    'training step', 'validation', 'metric', 'checkpoint rule'
)  # fmt: skip
SMALLER = {
    STEP: 'smaller crops (crop_size in the pipeline, and model.data_preprocessor.size)'
    ", model.backbone.with_cp=True, or optim_wrapper.type='AutocastOptimWrapper'",
    VALIDATION: "model.test_cfg.mode='slide' with windows of a training crop's size, "
    'or a smaller scale in val_dataloader.dataset.pipeline',
}
# Attributes of metrics that say where they write, and a file in a temporary folder.
OUTPUTS = dict(output_dir='', out_file_path='results.pkl')


class RehearsalError(RuntimeError):
    """The failure of a rehearsal: what was rehearsed, and the message of its cause."""


@HOOKS.register_module()
class RehearsalHook(Hook):
    """Take a training step and validate a few images before the first iteration.

    Finds errors that the checks of the config cannot, in the first minute instead of
    after the first validation. The first images of the data sets go through their
    pipelines, in this process, then the model, the losses and the optimiser wrapper
    with its precision, up to the clipped gradients. The optimiser's own step is left
    out: the training does it at once, and undoing it would need a copy of the
    optimiser's state. The validation is the config's loop with its metrics. At last the
    names that the best checkpoint, early stopping or a schedule take from the metrics
    are looked up.

    The training is the same, bit for bit, as without it: see
    :func:`illama_seg.engine.aside.set_aside`. Loaders and samplers are not used, and
    nothing is logged, drawn or written. A transform or data set that counts its calls
    sees some more of them.

    Several processes rehearse apart and exchange their failures. Where they compute
    together, as with sharded weights, a process that fails raises at once.

    Args:
        num_images: images to validate; the training step takes at most the batch of
            one process. 0 for no rehearsal.

    Attributes:
        summary: what was rehearsed and how long it took, for the log.

    Raises:
        RehearsalError: with the cause.
        UserError: a mistake that a user can fix.
    """

    priority = 'VERY_LOW'  # after all that sets weights, rates or gradients

    def __init__(self, num_images: int = 2) -> None:
        if num_images < 0:
            raise UserError(
                f'RehearsalHook num_images={num_images}: expected at least 1, or 0 for '
                'no rehearsal'
            )
        self.num_images = num_images
        self.summary = ''
        self._stage = STEP

    def before_train(self, runner: Runner) -> None:
        """Rehearse."""
        if not self.num_images or runner.iter >= runner.max_iters:
            return
        training_precision(runner.optim_wrapper)  # measured by all processes at once
        start = time.perf_counter()
        hooks = runner.hooks
        failure: Exception | None = None
        try:
            with set_aside(runner), alone():
                done = self._rehearse(runner, hooks)
        except UserError as error:
            failure = error
        except Exception as error:  # whatever the training would raise
            failure = RehearsalError(self._explain(error))
            failure.__cause__ = error
        if failure is not None and _compute_together(bare_model(runner)):
            raise failure  # the others wait within the model: the launcher ends them
        _raise_anywhere(failure)
        self.summary = f'{done}, {time.perf_counter() - start:.1f} s'

    def _rehearse(self, runner: Runner, hooks: Iterable[Hook]) -> str:
        self._stage = STEP
        done = f'one step of {_count(take_step(runner, self.num_images))}'
        if runner.val_loop is None:
            return done
        self._stage = VALIDATION
        metrics = self._validate(runner)
        self._stage = RULE
        check_names(hooks, runner.param_schedulers, metrics)
        return f'{done} and {_count(self.num_images)} validated'

    def _validate(self, runner: Runner) -> dict[str, Any]:
        """Metrics of a few images, by the loop of the config."""
        loop: Any = copy.copy(runner.val_loop)
        size = min(loop.dataloader.batch_size or self.num_images, self.num_images)
        loop.dataloader = first_images(loop.dataloader, self.num_images, size)
        loop.val_loss = {}
        loop.evaluator = evaluator = copy.deepcopy(loop.evaluator)
        evaluator.process = self._measuring(evaluator.process)
        evaluator.evaluate = self._measuring(evaluator.evaluate)
        with TemporaryDirectory() as folder:
            for metric in evaluator.metrics:
                for name, file in OUTPUTS.items():
                    if getattr(metric, name, None):
                        setattr(metric, name, str(Path(folder, file)))
            try:
                return loop.run()
            except UserError:
                raise
            except Exception as error:
                if self._stage == VALIDATION and (
                    text := unequal_sizes(next(iter(loop.dataloader)))
                ):
                    raise UserError(text) from error
                raise

    def _measuring(self, call: Callable) -> Callable:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._stage = METRIC
            try:
                result = call(*args, **kwargs)
            except Exception as error:
                samples = kwargs.get('data_samples', args[0] if args else ())
                if text := misfit_labels(samples):
                    raise UserError(text) from error
                raise
            self._stage = VALIDATION
            return result

        return called

    def _explain(self, error: Exception) -> str:
        line = traceback.extract_tb(error.__traceback__)[-1].line
        what = str(error) or f'at `{line}`'
        text = f'rehearsal of the {self._stage}: {type(error).__name__}: {what}'
        if is_out_of_memory(error) and self._stage in SMALLER:
            count = self.num_images
            text += f'\n{_count(count)} do not fit: set {SMALLER[self._stage]}'
        return (
            f'{text}\nThe training would fail likewise. To start it without a '
            'rehearsal: default_hooks.rehearsal.num_images=0'
        )


def take_step(runner: Runner, num_images: int) -> int:
    """Train on a few images, up to the clipped gradients.

    Returns:
        Number of images.
    """
    loader, model = runner.train_dataloader, bare_model(runner)
    size = min(images_of_batch(runner, loader) // runner.world_size, num_images)
    (batch,) = first_images(loader, size, size)
    model.train()
    if size == 1:
        for module in model.modules():
            if isinstance(module, nn.SyncBatchNorm):
                module.eval()  # it would need the other processes' images
    for wrapper in optim_wrappers(runner):
        wrapper.update_params = _stepless(wrapper)
    # The class's own: torch.compile replaces the instance's.
    type(model).train_step(model, batch, optim_wrapper=runner.optim_wrapper)
    return size


def _stepless(wrapper: Any) -> Callable[..., None]:
    """``update_params`` of an optimiser wrapper, without the optimiser's step."""

    def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
        # The class's own: hooks watch the instance's.
        type(wrapper).backward(wrapper, wrapper.scale_loss(loss))
        if wrapper.clip_grad_kwargs:
            wrapper._clip_grad()

    return update_params


def first_images(loader: DataLoader, count: int, batch_size: int) -> DataLoader:
    """Load the first images of a loader's data set, again if it has fewer, here."""
    length = len(loader.dataset)  # type: ignore[arg-type]
    images = Subset(loader.dataset, [index % length for index in range(count)])
    return DataLoader(images, batch_size, collate_fn=loader.collate_fn)


def check_names(
    hooks: Iterable[Hook], schedulers: Any, metrics: Mapping[str, Any]
) -> None:
    """Look up what hooks and schedules will take from the metrics of a validation.

    Args:
        hooks: of the runner.
        schedulers: the runner's: a list, a dict of lists, or None.
        metrics: name -> value, as the evaluator returns them.

    Raises:
        UserError: names the option, its value and the metrics.
        ValueError: it is not known whether more or less of the best score is better.
    """
    for hook in hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            _check_best(hook, metrics)
        elif isinstance(hook, EarlyStoppingHook):
            _look_up('EarlyStoppingHook monitor', hook.monitor, metrics)
    several = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for scheduler in (each for listed in several for each in listed or ()):
        if monitor := getattr(scheduler, 'monitor', None):
            _look_up(f'{type(scheduler).__name__} monitor', monitor, metrics)


def _check_best(hook: CheckpointHook, metrics: Mapping[str, Any]) -> None:
    trial = copy.copy(hook)
    trial.is_better_than = dict(hook.is_better_than)
    if 'auto' in trial.key_indicators:
        trial._init_rule(trial.rules, [next(iter(metrics), 'auto')])
    for key, rule in zip(trial.key_indicators, trial.rules, strict=True):
        _look_up('default_hooks.checkpoint.save_best', key, metrics)
        if (score := metrics[key]) is not None:
            trial.is_better_than[key](score, trial.init_value_map[rule])
            format(score, '0.4f')  # as the hook logs it


def _look_up(option: str, name: str, metrics: Mapping[str, Any]) -> None:
    if name not in metrics:
        raise UserError(
            f'{option}={name!r}, but the validation gives '
            f'{", ".join(metrics) or "nothing"}: set one of these'
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for the errors of GPU, CPU and numpy."""
    kinds = torch.OutOfMemoryError, MemoryError
    return isinstance(error, kinds) or 'DefaultCPUAllocator' in str(error)


def _compute_together(model: nn.Module) -> bool:
    """Return True if a forward pass waits for the other processes."""
    together = FSDPModule, DistributedDataParallel
    return any(isinstance(module, together) for module in model.modules())


def _raise_anywhere(failure: Exception | None) -> None:
    """Raise this process's failure, or name another's."""
    for rank, text in enumerate(all_gather_object(failure and str(failure))):
        if failure is not None:
            raise failure
        if text is not None:
            raise UserError(f'process {rank}: {text}')


def _count(images: int) -> str:
    return f'{images} image{"s" if images != 1 else ""}'
