"""Errors that a user can fix, and how the tools print them."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

# What a message calls in Python -> the command that a tool names instead.
COMMANDS = {
    "illama_seg.datasets.prepare.prepare_ade20k('data/ade/ADEChallengeData2016')": (
        'python tools/data/prepare_ade20k.py [FOLDER_OR_ZIP]'
    ),
    "illama_seg.datasets.prepare.prepare_camvid('data/camvid')": (
        'python tools/data/prepare_camvid.py'
    ),
    "illama_seg.datasets.scenes.write_scenes('data/scenes')": (
        'python tools/data/make_scenes.py'
    ),
    'illama_seg.apis.quantize_after_training': 'python tools/quantize.py ptq',
    'illama_seg.apis.build_trainer': 'python tools/train.py',
}


class UserError(ValueError):
    """A mistake in the input, with the way to fix it in its message.

    ``str()`` starts with the parameter and its value, as in Python; the tools name the
    option of the same name instead.

    Args:
        message: value expected and fix; value found, where no parameter is given.
        **parameter: at most one: the parameter and the value found.

    Example:
        >>> str(UserError('expected at least 1 image', num_images=0))
        'num_images=0: expected at least 1 image'
        >>> UserError('expected at least 1 image', num_images=0).as_option('num_images')
        '--num-images 0: expected at least 1 image'
    """

    def __init__(self, message: str, **parameter: Any) -> None:
        super().__init__(message)
        self.parameter = next(iter(parameter.items()), None)

    def __str__(self) -> str:
        if self.parameter is None:
            return super().__str__()
        name, value = self.parameter
        return f'{name}={value!r}: {super().__str__()}'

    def as_option(self, *options: str) -> str:
        """Return the message for the command line of a tool with these options."""
        if self.parameter is None:
            # A data loader's worker hands an error over with its traceback in front.
            name = f'{__name__}.{type(self).__name__}: '
            return str(self).rpartition(name)[2].rstrip()
        name, value = self.parameter
        if name not in options:  # a key of the config
            return str(self)
        flag = name.replace('_', '-')
        given = '' if value is True else f' {value}'  # a flag has no value
        return f'--{flag}{given}: {super().__str__()}'


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""


def run(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call the main function of a tool; print what a user can fix without traceback.

    Prints a :class:`UserError`, or an ``OSError`` that names a file or has a message of
    its own, and ends the program with status 2. Calls in ``COMMANDS`` are printed as
    commands. Every other error keeps its traceback.
    """
    try:
        main(args)
    except UserError as error:
        message = error.as_option(*vars(args))
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise
        message = f'{error.filename}: {error.strerror}' if error.errno else str(error)
    else:
        return
    for call, command in COMMANDS.items():
        message = message.replace(call, command)
    sys.stderr.write(f'error: {message}\n')
    sys.exit(2)
