"""Options and commands of the tools, in place of parameters and calls in Python."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable

from illama_seg.errors import UserError

# Call in Python that a message names -> command that a tool names instead.
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


def as_option(error: UserError, *options: str) -> str:
    """Return an error's message for the command line of a tool with these options.

    Example:
        >>> as_option(UserError('expected 1 or more', num_images=0), 'num_images')
        '--num-images 0: expected 1 or more'
    """
    if error.parameter is None:
        # A data loader's worker hands an error over with its traceback in front.
        kind = type(error)
        name = f'{kind.__module__}.{kind.__name__}: '
        return str(error).rpartition(name)[2].rstrip()
    name, value = error.parameter
    if name not in options:  # a key of the config
        return str(error)
    flag = name.replace('_', '-')
    given = '' if value is True else f' {value}'  # a flag has no value
    return f'--{flag}{given}: {error.args[0]}'


def run(main: Callable[[Namespace], None], args: Namespace) -> None:
    """Call the main function of a tool; print what a user can fix without traceback.

    Prints a :class:`UserError`, or an ``OSError`` that names a file or has a message of
    its own, and ends the program with status 2. Calls in ``COMMANDS`` are printed as
    commands. Every other error keeps its traceback.
    """
    try:
        main(args)
    except UserError as error:
        message = as_option(error, *vars(args))
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
