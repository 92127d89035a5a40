"""Options of an optimiser and its schedules, compared with those of a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.optim import AmpOptimWrapper

from illama_seg.engine.long_runs.plain_checkpoint import plain

# Where a schedule is, and what follows from other options of the config.
_PLACE = {
    'last_step', '_global_step', '_last_value', '_calls', 'base_values', '_every',
    'verbose', 'optimizer',
}  # fmt: skip
_FACTORS = ('growth_factor', 'backoff_factor', 'growth_interval')


def are_dicts(value: Any) -> bool:
    """Return True for a list of dicts, as a checkpoint should have."""
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def compare_groups(
    own: list[dict], saved: list[dict], names: Iterable[str]
) -> dict[str, str]:
    """Compare options of parameter groups.

    Args:
        own: groups of the run, at its first iteration.
        saved: those of the checkpoint, anywhere in a schedule.
        names: of the options.

    Returns:
        Name -> line for the log, of the options that differ.
    """
    lines = {}
    for name in sorted(names):
        if f'max_{name}' in own[0]:
            continue  # OneCycleLR's, which overwrites the optimiser's
        pairs = {}
        for old, new in zip(saved, own, strict=True):
            before, after = _value(old, name), _value(new, name)
            if before is not None and before != after:
                pairs[str(before), str(after)] = before, after
        if pairs:
            before, after = (_shown(side) for side in zip(*pairs.values(), strict=True))
            lines[name] = f'optim_wrapper.optimizer.{name}={after}, was {before}'
    return lines


def _value(group: dict, name: str) -> Any:
    """Value that a group began with, whatever a schedule made of it."""
    value = group.get(f'initial_{name}', group.get(name))
    if isinstance(value, (tuple, list)):  # Adam's: a schedule moves the first one
        value = (group.get('initial_momentum', value[0]), *value[1:])
    return value


def _shown(values: Iterable[Any]) -> str:
    values = list(values)
    if all(type(value) in (int, float) for value in values):
        low, high = min(values), max(values)
        return f'{low:.6g}' if low == high else f'{low:.6g} to {high:.6g}'
    return ', '.join(dict.fromkeys(map(repr, values)))


def compare_schedules(schedules: list, saved: Any) -> Iterator[str]:
    """Yield a line for each option of the schedules that differs from a checkpoint's.

    Args:
        schedules: the run's.
        saved: states of those of the checkpoint.
    """
    saved = saved if are_dicts(saved) else []
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


def compare_loss_scale(wrapper: Any, state: dict) -> Iterator[str]:
    """Put the loss scale's options into a state that is about to be loaded.

    Only mmengine's AmpOptimWrapper has some: factors, and a scale that is fixed.

    Yields:
        A line for each that differs.
    """
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
