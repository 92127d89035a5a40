"""Checks of arguments, and messages for configs that do not fit."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from illama_seg.errors import UserError
from illama_seg.layers import check_linear_asked
from illama_seg.layers.attention_dispatch import check_asked
from illama_seg.machine.precision import asked_precision


@contextmanager
def options_explained(config: str | Path | Config) -> Iterator[None]:
    """Name the config where something built from it does not take an option.

    Raises:
        UserError: instead of what a registry or a constructor raises.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        name = config.filename if isinstance(config, Config) else config
        line = traceback.extract_tb(error.__traceback__)[-1].line
        reason = error.args[0] if error.args else f'{type(error).__name__} at `{line}`'
        text = f'{name}, or an override, does not fit: {reason}'
        raise UserError(text) from error


def explain_building(runner: Runner, config: Config) -> None:
    """Apply :func:`options_explained` to what mmengine builds when a run begins."""
    for part in (
        'optim_wrapper', 'param_scheduler', 'train_loop', 'val_loop', 'test_loop'
    ):  # fmt: skip
        build = getattr(runner, f'build_{part}')
        setattr(runner, f'build_{part}', options_explained(config)(build))


def check_environment() -> None:
    """Refuse values of this package's variables, before data and model are built.

    Raises:
        UserError: names the variable, the value found and those expected.
    """
    asked_precision()
    check_asked()
    check_linear_asked()


def check_writable(folder: str | Path, parameter: str = 'out') -> None:
    """Make a folder of results, before hours are spent on what goes into it.

    Args:
        folder: made where it is missing.
        parameter: name of the argument that chose it, for the message.

    Raises:
        UserError: names the folder and the parameter.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f'cannot be written ({error.strerror}): name another folder'
        raise UserError(reason, **{parameter: str(folder)}) from error


def check_seed(seed: int) -> None:
    """Refuse a seed below 0, which NumPy does not take.

    Raises:
        UserError: names the seed.
    """
    if seed < 0:
        raise UserError('expected a number from 0 on', seed=seed)


def check_segmentation(cfg: Config) -> None:
    """Refuse a config without a segmentation head.

    Raises:
        UserError: names the config.
    """
    if 'decode_head' not in cfg.get('model', {}):
        raise UserError(
            f'{cfg.filename} has no model.decode_head: expected the config of a '
            'segmentation, such as configs/upernet_illama_demo.py. A classification '
            'can be trained, tested and compared only'
        )
