"""Options that a run is resumed with, where they are not those it was trained with.

mmengine restores the options of optimiser and schedules with their state, so those of
the config would have no effect.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from illama_seg.engine.long_runs.plain_checkpoint import plain
from illama_seg.errors import UserError

# Where a schedule is, and what follows from other options of the config.
_PLACE = {
    'last_step', '_global_step', '_last_value', '_calls', 'base_values', '_every',
    'verbose', 'optimizer',
}  # fmt: skip
_NEED_STATE = {'amsgrad', 'centered'}  # options of optimisers
_FACTORS = ('growth_factor', 'backoff_factor', 'growth_interval')
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

    A checkpoint's loss scale gets the config's factors. Where several optimisers train,
    nothing is compared.

    Args:
        runner: optimiser and schedules built, nothing loaded.
        checkpoint: content of the file; changed in place.
        averages: the run's :func:`averages` when it was saved, or None.

    Raises:
        UserError: the optimiser has other groups of parameters, or a schedule cannot be
            changed; names the file and the fix.
    """
    wrapper = runner.optim_wrapper
    found = Changes()
    if not isinstance(wrapper, OptimWrapper) or isinstance(wrapper, OptimWrapperDict):
        return found
    state = checkpoint['optimizer']
    groups = _saved_groups(runner, wrapper, state)
    found.groups = [_options(group) for group in wrapper.param_groups[: len(groups)]]
    schedules: Any = runner.param_schedulers or []
    found.schedules = [copy.deepcopy(s.state_dict()) for s in schedules]
    scheduled = {schedule.param_name for schedule in schedules}
    _compare_groups(found, groups, {*wrapper.optimizer.defaults, *scheduled})
    for name in {*found.options} & _NEED_STATE:
        if found.groups[0][name]:
            raise UserError(
                f'{_start(runner)} with optim_wrapper.optimizer.{name}=True: its '
                f'optimiser kept nothing for that. Set optim_wrapper.optimizer.{name}='
                f'False, or start anew from its weights: set load_from='
                f'{runner._load_from} and leave resume out'
            )
    lines = list(_compare_schedules(schedules, checkpoint.get('param_schedulers')))
    found.lines += lines
    if 'momentum' in scheduled:  # Adam's, the first of its betas
        scheduled.add('betas')
    found.reschedules = bool(lines or scheduled & {*found.options})
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
    found.lines += _compare_loss_scale(wrapper, state)
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
    groups = state.get('param_groups')
    if not _are_dicts(groups):
        raise UserError(
            f'{_start(runner)}: its optimizer has no list of param_groups'
        )
    own = wrapper.optimizer.param_groups
    sizes = [[len(group['params']) for group in each] for each in (groups, own)]
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


def _are_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _compare_groups(found: Changes, groups: Groups, names: Iterable[str]) -> None:
    for name in sorted(names):
        if f'max_{name}' in found.groups[0]:
            continue  # OneCycleLR's, which overwrites the optimiser's
        pairs = {}
        for old, new in zip(groups, found.groups, strict=True):
            before, after = _value(old, name), _value(new, name)
            if before is not None and before != after:
                pairs[str(before), str(after)] = before, after
        if pairs:
            found.options.append(name)
            before, after = (_shown(side) for side in zip(*pairs.values(), strict=True))
            key = f'optim_wrapper.optimizer.{name}'
            found.lines.append(f'{key}={after}, was {before}')


def _value(group: dict, name: str) -> Any:
    """Value that a group began with, whatever a schedule made of it."""
    value = group.get(f'initial_{name}', group.get(name))
    if isinstance(value, (tuple, list)):  # Adam's: a schedule moves the first one
        value = (group.get('initial_momentum', value[0]), *value[1:])
    return value


def _shown(values: Iterable[Any]) -> str:
    values = list(values)
    if all(isinstance(value, (int, float)) for value in values):
        low, high = min(values), max(values)
        return f'{low:.6g}' if low == high else f'{low:.6g} to {high:.6g}'
    return ', '.join(dict.fromkeys(map(repr, values)))


def _compare_schedules(schedules: list, saved: Any) -> Iterable[str]:
    saved = saved if _are_dicts(saved) else []
    if len(saved) != len(schedules):
        yield f'param_scheduler of {len(schedules)} schedules, was of {len(saved)}'
        return
    for number, (schedule, state) in enumerate(zip(schedules, saved, strict=True)):
        key, known = f'param_scheduler.{number}', _parameters(schedule)
        new, old = (_settings(schedule, s) for s in (schedule.state_dict(), state))
        if new.keys() != old.keys():
            yield f'{key}.type={type(schedule).__name__}, was another'
            continue
        names = [name for name in new if new[name] != old[name]]
        said = [name for name in names if name.lstrip('_') in known]
        for name in said:
            yield f'{key}.{name.lstrip("_")}={new[name]!r}, was {old[name]!r}'
        if names and not said:
            yield f'{key} of other options'


def _parameters(schedule: Any) -> set[str]:
    kinds = type(schedule).__mro__[:-1]
    return {name for kind in kinds for name in inspect.signature(kind).parameters}


def _settings(schedule: Any, state: dict) -> dict[str, Any]:
    """What of a schedule's state its config says.

    An attribute of an unknown schedule may be its place; those of its parameters' names
    are not.
    """
    package = type(schedule).__module__.partition('.')[0]
    is_known = package in ('mmengine', 'illama_seg')
    is_known &= not getattr(schedule, 'need_val_args', False)
    names = _parameters(schedule)
    plain_state: dict = plain(dict(state), '', [])
    return {
        key: dict(value) if isinstance(value, dict) else value
        for key, value in plain_state.items()
        if key not in _PLACE and (is_known or key.lstrip('_') in names)
    }


def _take_steps(runner: Runner, schedules: list) -> None:
    """Step as ParamSchedulerHook did in all iterations and epochs that are done."""
    loop: Any = runner.train_loop
    epochs = loop._epoch if isinstance(loop, EpochBasedTrainLoop) else 0
    length = len(runner.train_dataloader)
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


def _compare_loss_scale(wrapper: Any, state: dict) -> Iterable[str]:
    """Put the factors of mmengine's AmpOptimWrapper, and a fixed scale, into a state."""
    saved = state.get('loss_scaler')
    if not isinstance(wrapper, AmpOptimWrapper) or not isinstance(saved, dict):
        return
    own = wrapper.loss_scaler.state_dict()
    wanted = {key: own[key] for key in _FACTORS if key in own}
    if wrapper._scale_update_param is not None:
        wanted['scale'] = wrapper._scale_update_param
    for key, value in wanted.items():
        if saved.get(key) not in (None, value):
            yield f'optim_wrapper.loss_scale.{key}={value:g}, was {saved[key]:g}'
            saved[key] = value


def _compare_lengths(runner: Runner, checkpoint: dict) -> Iterable[str]:
    infos = checkpoint['message_hub'].get('runtime_info')
    in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
    name = 'max_epochs' if in_epochs else 'max_iters'
    before = infos.get(name) if isinstance(infos, dict) else None
    after = getattr(runner, name)
    if isinstance(before, int) and before != after:
        yield f'train_cfg.{name}={after}, was {before}'


def _compare_averages(before: Any, after: list[dict]) -> Iterable[str]:
    if not _are_dicts(before) or len(before) != len(after):
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
