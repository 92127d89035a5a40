"""Resume a training exactly where its newest whole checkpoint was written."""

from __future__ import annotations

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from illama_seg.engine.long_runs.changes import (
    Changes,
    describe_averages,
    find_changes,
)
from illama_seg.engine.long_runs.loops import (
    ResumableEpochTrainLoop,
    ResumableIterTrainLoop,
    images_of_batch,
)
from illama_seg.engine.long_runs.newest import check_resumable, resume_from_newest
from illama_seg.engine.optim import training_precision
from illama_seg.engine.schedule import updates_every
from illama_seg.errors import UserError
from illama_seg.machine import choices

KEY = 'resume'


@HOOKS.register_module()
class ResumeHook(Hook):
    """Resume from the newest whole checkpoint, at the same sample and gradients.

    Keeps the place in the data, gradients of an unfinished update, and the choices made
    by measurement, such as the implementation of the attention: another one rounds
    differently. Random numbers are functions of the place, see
    ``illama_seg.engine.long_runs.seeding``. The seed, the optimiser and its precision,
    schedules, averaged weights and loss scale are in mmengine's checkpoints already.
    Options of optimiser, schedules and averages that the config has changed since then
    apply, see ``illama_seg.engine.long_runs.changes``; the log says so, and where the
    run goes on in another precision.
    The entry ``resume`` is a dict of numbers, strings and tensors. Where several
    processes train, gradients of an unfinished update are not kept.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._resumed: dict[str, Any] = {}
        self.changes = Changes()

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, where the config asks to resume.

        Raises:
            FileNotFoundError: the checkpoint that ``load_from`` names is not there.
            UserError: the checkpoints are damaged, or hold weights only.
        """
        resume_from_newest(runner)
        check_resumable(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the entry."""
        loop, meta = runner.train_loop, checkpoint['meta']
        entry: dict[str, Any] = dict(
            choices=choices.made(),
            precision=training_precision(runner.optim_wrapper).name,
            averages=describe_averages(runner),
        )
        if isinstance(loop, ResumableEpochTrainLoop):
            done = meta['iter'] - meta['epoch'] * len(loop.dataloader)
            entry['images_of_epoch'] = done * images_of_batch(runner, loop.dataloader)
        elif isinstance(loop, ResumableIterTrainLoop):
            passes, images = loop.dataloader_iterator.place
            entry.update(passes=passes, images_of_pass=images)
        unfinished = meta['iter'] % updates_every(runner.optim_wrapper)
        if unfinished and meta['iter'] < runner.max_iters and runner.world_size == 1:
            entry['gradients'] = {
                name: parameter.grad.detach().cpu()
                for name, parameter in _model(runner).named_parameters()
                if parameter.grad is not None
            }
        checkpoint[KEY] = entry

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Remember the entry of a run that is resumed.

        Raises:
            UserError: it is no such entry; names the file.
        """
        self._resumed = checkpoint.get(KEY, {}) if runner._resume else {}
        if not isinstance(self._resumed, dict):
            raise UserError(
                f'{runner._load_from} cannot be resumed: its entry {KEY!r} is of type '
                f'{type(self._resumed).__name__}, expected a dict'
            )
        if runner._resume and runner._load_from is not None:
            averages = self._resumed.get('averages')
            self.changes = find_changes(runner, checkpoint, averages)
            state = checkpoint['optimizer']
            self._resumed.setdefault('precision', state.get('precision'))
        choices.resume(self._resumed.get('choices'))
        loop = runner.train_loop
        if isinstance(loop, ResumableEpochTrainLoop):
            loop.images_done = self._resumed.get('images_of_epoch')
        elif isinstance(loop, ResumableIterTrainLoop) and 'passes' in self._resumed:
            loop.place = self._resumed['passes'], self._resumed['images_of_pass']

    def before_train(self, runner: Runner) -> None:
        """Put the gradients back, and say where nothing is left to do.

        Raises:
            UserError: gradients or optimiser are of another model or type; names the
                file.
        """
        if not runner._resume:
            return
        _check_optimizer(runner)
        self.changes.apply(runner)
        before = self._resumed.get('precision')
        now = training_precision(runner.optim_wrapper)
        if before not in (None, now.name):
            runner.logger.warning('trained in %s, goes on in %s', before, now.reason)
        gradients = self._resumed.pop('gradients', {})
        if not isinstance(gradients, dict):
            raise UserError(
                f'{runner._load_from} cannot be resumed: its gradients are of type '
                f'{type(gradients).__name__}, expected a dict'
            )
        for name, parameter in _model(runner).named_parameters():
            if name in gradients:
                found = gradients[name]
                if not isinstance(found, Tensor) or found.shape != parameter.shape:
                    raise UserError(
                        f'{runner._load_from} cannot be resumed: the gradient of '
                        f'{name} in it is {_shape(found)}, expected {_shape(parameter)}'
                    )
                parameter.grad = found.to(parameter, copy=True)
        if runner.iter >= runner.max_iters:
            runner.logger.log(
                logging.WARNING if runner.iter > runner.max_iters else logging.INFO,
                'nothing is left to train: %s is of iteration %d, the training ends '
                'after %d (train_cfg)',
                runner._load_from,
                runner.iter,
                runner.max_iters,
            )


def _check_optimizer(runner: Runner) -> None:
    """Refuse what another type of optimiser has left: it lacks this one's options."""
    wrapper: Any = runner.optim_wrapper
    several = isinstance(wrapper, OptimWrapperDict)
    for optimizer in (
        w.optimizer for w in (wrapper.values() if several else [wrapper])
    ):
        for group in optimizer.param_groups:
            if lacking := sorted(optimizer.defaults.keys() - group.keys()):
                raise UserError(
                    f'{runner._load_from} cannot be resumed with '
                    f'{type(optimizer).__name__}: its optimizer has no '
                    f'{", ".join(lacking)}. Resume with the optimiser it was trained '
                    'with, or start anew from its weights: set '
                    f'load_from={runner._load_from} and leave resume out'
                )


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else repr(value)[:40]


def _model(runner: Runner) -> nn.Module:
    model: Any = runner.model
    return model.module if is_model_wrapper(model) else model
