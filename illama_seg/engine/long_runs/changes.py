"""Options that a run is resumed with, where they are not those it was trained with.

mmengine restores the options of optimiser and schedules with their state, so those of
the config would have no effect.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from illama_seg.engine.long_runs.options import (
    are_dicts,
    compare_groups,
    compare_loss_scale,
    compare_schedules,
)
from illama_seg.errors import UserError

_NEED_STATE = {'amsgrad', 'centered'}  # options of optimisers
Groups = list[dict[str, Any]]


@dataclass
class Changes:
    """Differences between a config's options and those of a checkpoint.

    Attributes:
        lines: one for each option, as ``key=value, was value``.
        options: names of the optimiser's options that differ.
        groups: options of the parameter groups by the config, at the first iteration.
        schedules: states of the schedules by the config, at the first iteration.
        reschedules: whether a schedule, or a value that it starts from, differs.
    """

    lines: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    groups: Groups = field(default_factory=list)
    schedules: list[dict] = field(default_factory=list)
    reschedules: bool = False

    def apply(self, runner: Runner) -> None:
        """Give the config's options to a run whose state has been loaded.

        The values of a schedule become those that a run would have here that had the
        options from its start: the schedules begin anew and take all steps again.
        """
        for line in self.lines:
            runner.logger.warning('resumed with %s', line)
        wrapper: Any = runner.optim_wrapper
        for group, options in zip(wrapper.param_groups, self.groups, strict=False):
            group.update({key: options[key] for key in self.options})
            if self.reschedules:
                for key in group.keys() - options.keys() - {'params'}:
                    del group[key]  # of a schedule that there was
                group.update(options)
        if self.reschedules:
            schedules: Any = runner.param_schedulers or []
            for schedule, state in zip(schedules, self.schedules, strict=True):
                vars(schedule).clear()
                vars(schedule).update(state, optimizer=wrapper)
            _take_steps(runner, schedules)


def find_changes(runner: Runner, checkpoint: dict, averages: Any) -> Changes:
    """Compare a run that is about to be resumed with the checkpoint.

    Where several optimisers train, nothing is compared.

    Args:
        runner: optimiser and schedules built, nothing loaded.
        checkpoint: content of the file; changed in place.
        averages: :func:`describe_averages` of the run when it was saved, or None.

    Raises:
        UserError: the optimiser has other groups of parameters, or a schedule cannot be
            changed; names the file and the fix.
    """
    wrapper = runner.optim_wrapper
    found = Changes()
    if isinstance(wrapper, OptimWrapperDict):
        found.lines.append("several optimisers: their options are the checkpoint's")
    if not isinstance(wrapper, OptimWrapper) or found.lines:
        return found
    state = checkpoint['optimizer']
    groups = _saved_groups(runner, wrapper, state)
    found.groups = [_options(group) for group in wrapper.param_groups[: len(groups)]]
    schedules: Any = runner.param_schedulers or []
    found.schedules = [copy.deepcopy(s.state_dict()) for s in schedules]
    scheduled = {schedule.param_name for schedule in schedules}
    names = {*wrapper.optimizer.defaults, *scheduled}
    differing = compare_groups(found.groups, groups, names)
    found.options, found.lines = list(differing), list(differing.values())
    for name in differing.keys() & _NEED_STATE:
        if found.groups[0][name]:
            raise UserError(
                f'{_start(runner)} with optim_wrapper.optimizer.{name}=True: its '
                f'optimiser kept nothing for that. Set optim_wrapper.optimizer.{name}='
                f'False, or start anew from its weights: set load_from='
                f'{runner._load_from} and leave resume out'
            )
    lines = list(compare_schedules(schedules, checkpoint.get('param_schedulers')))
    found.lines += lines
    if 'momentum' in scheduled:  # Adam's, the first of its betas
        scheduled.add('betas')
    found.reschedules = bool(lines or scheduled & differing.keys())
    if found.reschedules:
        checkpoint.pop('param_schedulers', None)  # may not fit the new ones
        for schedule in schedules:
            if getattr(schedule, 'need_val_args', False):
                raise UserError(
                    f'{_start(runner)}: {type(schedule).__name__} follows the scores '
                    'of the validations, so its past is not known with '
                    f'{"; ".join(found.lines)}. Resume with the options it was trained '
                    'with, or start anew from its weights: set '
                    f'load_from={runner._load_from} and leave resume out'
                )
    found.lines += compare_loss_scale(wrapper, state)
    found.lines += _compare_lengths(runner, checkpoint)
    found.lines += _compare_averages(averages, describe_averages(runner))
    found.lines += _leave_averages(runner, checkpoint)
    return found


def describe_averages(runner: Runner) -> list[dict]:
    """Options of the averaged weights, for the checkpoint."""
    return [dict(h.ema_cfg) for h in runner.hooks if isinstance(h, EMAHook)]


def _start(runner: Runner) -> str:
    return f'{runner._load_from} cannot be resumed'


def _options(group: dict) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != 'params'}


def _saved_groups(runner: Runner, wrapper: Any, state: dict) -> Groups:
    """Groups of the checkpoint, with that of mmengine's log last, as in the wrapper."""
    groups: Any = state.get('param_groups')
    if not are_dicts(groups):
        raise UserError(f'{_start(runner)}: its optimizer has no list of param_groups')
    own = wrapper.optimizer.param_groups
    sizes = [[len(g.get('params', ())) for g in each] for each in (groups, own)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f'{_start(runner)}: its optimizer has {len(groups)} groups of parameters, '
            f'that of the config {len(own)} (or of other sizes). Set '
            'optim_wrapper.constructor and optim_wrapper.paramwise_cfg as it was '
            'trained with, or start anew from its weights: set '
            f'load_from={runner._load_from} and leave resume out'
        )
    base = state.get('base_param_settings')
    return [*groups, base] if isinstance(base, dict) else list(groups)


def _take_steps(runner: Runner, schedules: list) -> None:
    """Step as ParamSchedulerHook did in all iterations and epochs that are done."""
    loop: Any = runner.train_loop
    epochs = loop._epoch if isinstance(loop, EpochBasedTrainLoop) else 0
    length = len(runner.train_dataloader) if epochs else 1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the optimiser has made no step
        for done in range(1, runner.iter + 1):
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()
            if done % length == 0 and done // length <= epochs:
                for schedule in schedules:
                    if schedule.by_epoch:
                        schedule.step()


def _compare_lengths(runner: Runner, checkpoint: dict) -> Iterable[str]:
    infos = checkpoint['message_hub'].get('runtime_info')
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    name = 'max_epochs' if in_epochs else 'max_iters'
    before = infos.get(name) if isinstance(infos, dict) else None
    after = getattr(runner, name)
    if isinstance(before, int) and before != after:
        yield f'train_cfg.{name}={after}, was {before}'


def _compare_averages(before: Any, after: list[dict]) -> Iterable[str]:
    if not are_dicts(before) or len(before) != len(after):
        return
    for old, new in zip(before, after, strict=True):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield f'EMAHook {key}={new.get(key)!r}, was {old.get(key)!r}'


def _leave_averages(runner: Runner, checkpoint: dict) -> Iterable[str]:
    """Take the training's own weights where the run has no EMAHook any more.

    In a checkpoint of a run with one the averages are in their place.
    """
    own = checkpoint.get('ema_state_dict')
    if isinstance(own, dict) and not describe_averages(runner):
        for key, value in own.items():
            if key.startswith('module.'):
                checkpoint['state_dict'][key.removeprefix('module.')] = value
        yield 'no EMAHook: from the weights of the training, not their averages'
