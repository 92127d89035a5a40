"""Say what a user can mend; keep the traceback of everything else."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

from illama_seg.errors import UserError


@contextmanager
def options_explained(config: str | Path | Config) -> Iterator[None]:
    """Name the config where something built from it does not take an option."""
    try:
        yield
    except (KeyError, TypeError, AssertionError) as error:
        raise UserError(explain_misfit(config, error)) from error


def explain_misfit(config: str | Path | Config, error: Exception) -> str:
    """Which config does not fit and why; a bare assertion is shown as it is written."""
    name = config.filename if isinstance(config, Config) else config
    line = traceback.extract_tb(error.__traceback__)[-1].line
    reason = error.args[0] if error.args else f'{type(error).__name__} at `{line}`'
    return f'{name}, or an override, does not fit: {reason}'


def check_writable(folder: str | Path, option: str) -> None:
    """Make a folder of results, before hours are spent on what goes into it.

    Raises:
        ValueError: names the folder and the option.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f'{folder} cannot be written ({error.strerror}); name another folder with '
            f'{option}'
        ) from error


def check_seed(seed: int) -> None:
    """Refuse a seed below 0, which NumPy does not take.

    Raises:
        ValueError: names the option.
    """
    if seed < 0:
        raise UserError(f'--seed {seed}: expected a number from 0 on')


def check_segmentation(cfg: Config) -> None:
    """Refuse a config without a segmentation head.

    Raises:
        ValueError: names the config, and the tools for a classification.
    """
    if 'decode_head' not in cfg.get('model', {}):
        raise UserError(
            f'{cfg.filename} has no model.decode_head: expected the config of a '
            'segmentation, such as configs/upernet_illama_demo.py. A classification '
            'goes through tools/train.py, tools/test.py and tools/analysis/compare.py'
        )


@contextmanager
def mistakes_explained(cfg: Config) -> Iterator[None]:
    """End the program with a message for what a user can mend, met during a run.

    A damaged image, weights of another size, an option that the optimiser or a data
    loader does not take, a batch too small. Other errors keep their traceback.
    """
    try:
        yield
    except Exception as error:
        message, frames = str(error), traceback.extract_tb(error.__traceback__)
        if any(
            'mmengine' in f.filename and f.name.startswith('build_') for f in frames
        ):
            sys.exit(f'error: {explain_misfit(cfg, error)}')
        if message.startswith('Expected more than 1 value per channel'):
            sys.exit(
                'error: a process got one image, but batch normalisation after the '
                "decoder's pooling needs two: --cfg-options "
                'train_dataloader.batch_size=2'
            )
        if message.startswith('Caught ') and 'DataLoader worker' in message:
            # torch hands over a worker's error with its traceback in the message.
            origin, _, message = message.rpartition(f'\n{type(error).__name__}: ')
            raised_at = origin.rpartition('File "')[2].partition('"')[0]
        else:
            raised_at = frames[-1].filename
        ours = Path(raised_at).is_relative_to(Path(__file__).parents[1])
        if ours and isinstance(error, (ValueError, OSError)):
            sys.exit(f'error: {message}')
        raise
