"""Errors that a user can fix."""

from __future__ import annotations

from typing import Any


class UserError(ValueError):
    """A mistake in the input, with the way to fix it in its message.

    ``str()`` starts with the parameter and its value, as in Python. The tools name the
    option of the same name instead, see :mod:`illama_seg.apis.command_line`.

    Args:
        message: value expected and fix; value found, where no parameter is given.
        **parameter: at most one: the parameter and the value found.

    Example:
        >>> str(UserError('expected at least 1 image', num_images=0))
        'num_images=0: expected at least 1 image'
    """

    def __init__(self, message: str, **parameter: Any) -> None:
        super().__init__(message)
        self.parameter = next(iter(parameter.items()), None)

    def __str__(self) -> str:
        if self.parameter is None:
            return super().__str__()
        name, value = self.parameter
        return f'{name}={value!r}: {super().__str__()}'


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""
