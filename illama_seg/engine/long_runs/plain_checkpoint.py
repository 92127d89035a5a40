"""Checkpoints that torch reads with ``weights_only=True``."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from illama_seg.checkpoints import CURVE

_NOTHING = object()
_KEPT = (dict, OrderedDict, Counter)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Save nothing but tensors, numbers, strings and containers of them.

    The message hub's curves become tensors, numpy's numbers and arrays Python's numbers
    and lists. Any other object is left out, with a warning. Reading puts the
    curves back, see ``illama_seg.integrations.mmengine_loading``.
    """

    priority = 'LOWEST'  # after all hooks that put something in

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Replace what is about to be saved; nothing of the runner changes."""
        left_out: list[str] = []
        for key, value in list(checkpoint.items()):
            found = plain(value, key, left_out)
            if found is _NOTHING:
                del checkpoint[key]
            else:
                checkpoint[key] = found
        if left_out:
            runner.logger.log(
                logging.WARNING,
                'left out of the checkpoint, since reading it would run code: %s',
                ', '.join(left_out),
            )


def plain(value: Any, place: str, left_out: list[str]) -> Any:
    """A copy in plain data, sharing the tensors; adds to ``left_out`` what has none."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, HistoryBuffer):
        arrays = map(torch.from_numpy, value.data)
        return dict(zip(CURVE, (*arrays, value.max_length), strict=True))
    if kind.__module__.partition('.')[0] in ('torch', 'numpy'):
        return value.tolist() if kind.__module__ == 'numpy' else value
    if isinstance(value, dict):
        made: Any = kind() if kind in _KEPT else {}
        for key, item in value.items():
            found = plain(item, f'{place}.{key}', left_out)
            if found is not _NOTHING:
                made[plain(key, place, left_out)] = found
        if kind is OrderedDict and hasattr(value, '_metadata'):  # of a state dict
            made._metadata = value._metadata
        return made
    if isinstance(value, (list, tuple, set, frozenset)):
        items = (
            plain(item, f'{place}.{index}', left_out)
            for index, item in enumerate(value)
        )
        whole = [item for item in items if item is not _NOTHING]
        return tuple(whole) if isinstance(value, tuple) else whole
    for base in (str, int, float):  # their subclasses
        if isinstance(value, base):
            return base(value)
    if isinstance(value, Path):
        return str(value)
    left_out.append(f'{place} ({kind.__module__}.{kind.__qualname__})')
    return _NOTHING
