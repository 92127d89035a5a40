"""What a checkpoint needs, beside what mmengine puts there, to go on exactly."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from illama_seg.engine.loops import (
    ResumableEpochTrainLoop,
    ResumableIterTrainLoop,
    images_of_batch,
)
from illama_seg.engine.schedule import updates_every

KEY = 'resume'


@HOOKS.register_module()
class ResumeHook(Hook):
    """Keep the place in the data, and gradients that are not yet a whole update.

    Random numbers are functions of the place, see ``illama_seg.engine.seeding``; the
    seed, the optimiser, schedules, averaged weights and loss scale are in mmengine's
    checkpoints already. The entry ``resume`` is a dict of numbers and tensors. Where
    several processes train, gradients of an unfinished update are not kept.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._resumed: dict[str, Any] = {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the entry."""
        loop, meta = runner.train_loop, checkpoint['meta']
        entry: dict[str, Any] = {}
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
        """Remember the entry of a run that is resumed."""
        self._resumed = checkpoint.get(KEY, {}) if runner._resume else {}
        loop = runner.train_loop
        if isinstance(loop, ResumableEpochTrainLoop):
            loop.images_done = self._resumed.get('images_of_epoch')
        elif isinstance(loop, ResumableIterTrainLoop) and 'passes' in self._resumed:
            loop.place = self._resumed['passes'], self._resumed['images_of_pass']

    def before_train(self, runner: Runner) -> None:
        """Put the gradients back."""
        gradients = self._resumed.pop('gradients', {})
        for name, parameter in _model(runner).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter, copy=True)


def _model(runner: Runner) -> nn.Module:
    model: Any = runner.model
    return model.module if is_model_wrapper(model) else model
