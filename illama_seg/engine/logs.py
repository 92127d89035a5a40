"""Logs that survive a full disk; Weights & Biases without a copy of the folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import LoggerHook
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import WandbVisBackend


@VISBACKENDS.register_module()
class ConfigWandbVisBackend(WandbVisBackend):
    """mmengine's backend, but of the code it keeps the config only.

    mmengine's also copies every .py file below the working directory into the run,
    which takes minutes where that holds a virtual environment.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config."""
        # The first use of `experiment` starts the run.
        self.experiment.config.update(config.to_dict(), allow_val_change=True)


@HOOKS.register_module()
class SafeLoggerHook(LoggerHook):
    """``LoggerHook`` that survives a full disk.

    In distributed tests only rank 0 writes the metrics file; mmengine lets every rank
    write it.
    """

    def before_run(self, runner: Runner) -> None:
        """Let the log file survive a full disk as well."""
        super().before_run(runner)
        survive_full_disk(runner.logger)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log at the interval."""
        with _survived(runner):
            super().after_train_iter(runner, *args, **kwargs)

    def after_val_epoch(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the metrics."""
        with _survived(runner):
            super().after_val_epoch(runner, *args, **kwargs)

    @master_only
    def after_test_epoch(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log the metrics, and write them to the folder of logs."""
        super().after_test_epoch(runner, *args, **kwargs)


@contextmanager
def _survived(runner: Runner) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        runner.logger.error(f'the curves could not be written: {error}')


def survive_full_disk(logger: logging.Logger) -> None:
    """Let a log's file that cannot be written cost one line, not one for each record.

    logging's own answer is a traceback on the console, every time.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            answer = _SayOnce(logger, handler)
            handler.handleError = answer  # type: ignore[method-assign]


class _SayOnce:
    def __init__(self, logger: logging.Logger, handler: logging.FileHandler) -> None:
        self.logger, self.handler, self.said = logger, handler, False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            logging.Handler.handleError(self.handler, record)
        elif not self.said:
            self.said = True  # before this line fails in the file, too
            self.logger.error(
                f'{self.handler.baseFilename} cannot be written: {error}. Until it '
                'can, the log is on the console only'
            )
