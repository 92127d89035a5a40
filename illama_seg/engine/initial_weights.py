"""Weights of a file that a run starts from, fitted or refused."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from illama_seg.checkpoints import Checkpoint, all_weights, fit_to_model
from illama_seg.errors import UserError


@HOOKS.register_module()
class InitialWeightsHook(Hook):
    """Load the file of ``load_from`` as ``init_cfg`` does; refuse one that is not it.

    mmengine loads the keys whose names and shapes happen to be the model's. For a
    training this hook resizes the positional embedding, gives the files of a backbone
    the model's names, leaves heads of another size out and logs what became of every
    key; the model gets it as ``load_report``. A run that is resumed or tested needs
    all weights, in their own shapes.

    Raises:
        UserError: nothing of the file fits the backbone, the backbone is of another
            size, or a resumed or tested file is not of this model.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which copies what is loaded

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace the weights of the checkpoint by those that fit."""
        source = runner._load_from
        if source is None:  # a program's own call of load_checkpoint
            return
        model: Any = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        read = Checkpoint(str(source), Path(source).expanduser(), checkpoint)
        if runner._resume or not isinstance(runner._train_loop, BaseLoop):
            weights, faults = all_weights(model, read)
            if faults:
                raise UserError(_explain(faults, runner))
            if runner._resume:
                return
        else:
            weights, model.load_report = fit_to_model(model, read, runner.logger)
        fitted = OrderedDict(weights)
        if hasattr(read.container, '_metadata'):  # versions of modules
            fitted._metadata = read.container._metadata  # type: ignore[attr-defined]
        checkpoint['state_dict'] = fitted


def _explain(faults: list[str], runner: Runner) -> str:
    source, shown = runner._load_from, '\n  '.join(faults[:5])
    fix = 'use the config it was trained with'
    if runner._resume:
        fix += (
            '; or start a training from its weights: set '
            f'load_from={source} and leave resume out'
        )
    does = 'cannot be resumed' if runner._resume else 'cannot be tested'
    return (
        f'{source} {does}: it is not a checkpoint of this model, {len(faults)} keys do '
        f'not fit:\n  {shown}\nTo go on, {fix}'
    )
