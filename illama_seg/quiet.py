"""Keep known notes of the libraries off the terminal, each by its own words.

Nothing else is held back, and log files keep everything.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

# Lines that libraries print while they are imported.
PRINTED = ('Could not import OneDL',)
# Warnings of libraries that a user of this package cannot act on: the module, and the
# beginning of the message.
WARNED = (
    ('mmcv.cnn.bricks.transformer', 'Fail to import ``MultiScaleDeformableAttention``'),
    ('mmseg.models.losses.cross_entropy_loss', 'Default ``avg_non_ignore`` is False'),
    ('mmseg.engine.hooks.visualization_hook', 'The draw is False, it means that'),
    ('mmengine.structures.pixel_data', 'The shape of value will convert from'),
    ('mmengine.utils.dl_utils.setup_env', 'Setting OMP_NUM_THREADS environment'),
    ('mmengine.utils.dl_utils.setup_env', 'Setting MKL_NUM_THREADS environment'),
    ('mmengine.model.wrappers.distributed', '`broadcast_buffers` is deprecated'),
    # Accumulation steps the schedules before the first update, as it should.
    ('mmengine.optim.scheduler.param_scheduler', 'Detected call of `scheduler.step()`'),
    ('torch._weights_only_unpickler', 'Detected pickle protocol'),
)
# Records of loggers of libraries: the logger, and the beginning of the message.
TOLD = (
    ('torch.utils.cpp_extension', 'No CUDA runtime is found'),
    ('torch.utils._pytree', "<enum 'KernelPreference'> is an Enum subclass"),
    ('torch.utils._pytree', "<enum 'ScaleCalculationMode'> is an Enum subclass"),
)
# Beginnings of what mmengine logs at every start; the log file keeps it.
LOGGED = (
    f'\n{"-" * 60}\nSystem environment',
    'Config:\n',
    'Distributed training is not used, all SyncBatchNorm',
    'Hooks will be executed in the following order',
    'paramwise_options -- ',
    'The prefix is not set in metric class IoUMetric',
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
)
# The end of what mmengine logs of each parameter that is not trained.
FROZEN = 'is skipped since its requires_grad=False'


def ignore_known_warnings() -> None:
    """Ignore what is in ``WARNED`` and ``TOLD``, for the life of the process."""
    for module, beginning in WARNED:
        module = f'{re.escape(module)}$'
        warnings.filterwarnings('ignore', re.escape(beginning), Warning, module)
    for name, beginning in TOLD:
        logging.getLogger(name).addFilter(
            lambda record, beginning=beginning: (  # type: ignore[misc]
                not record.getMessage().startswith(beginning)
            )
        )


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Drop the lines in ``PRINTED`` while libraries are imported."""
    with redirect_stdout(_WithoutLines(sys.stdout)):
        yield


class _WithoutLines:
    """A stream without the lines of ``PRINTED``; everything else goes through."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._held = stream, ''

    def write(self, text: str) -> int:
        held, self._held = self._held, ''
        if held and text == '\n':  # print writes the end of a line by itself
            return 1
        if held:
            self._stream.write(held)
        if text in PRINTED:
            self._held = text
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_terminal(runner_type: type) -> Iterator[None]:
    """Let the runners that are built meanwhile log ``LOGGED`` to their file only."""
    original = runner_type.build_logger  # type: ignore[attr-defined]

    def build_logger(runner: Any, *args: Any, **kwargs: Any) -> logging.Logger:
        logger = original(runner, *args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_not_known)
        return logger

    runner_type.build_logger = build_logger  # type: ignore[attr-defined]
    try:
        yield
    finally:
        runner_type.build_logger = original  # type: ignore[attr-defined]


def _is_not_known(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not message.startswith(LOGGED) and not message.endswith(FROZEN)
