"""Checks and durable writing of a checkpoint's file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from illama_seg.errors import UserError


def make_durable(part: Path, path: Path) -> None:
    """Give a file its name once its bytes are on the disk, and then the name too.

    Raises:
        OSError: if the disk refuses; late, as network file systems may be.
    """
    if part.is_file():
        _flush(part)
    os.replace(part, path)
    with suppress(OSError):  # not every file system flushes folders
        _flush(path.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_finite(weights: Mapping[str, Any], iteration: int, settings: str) -> None:
    """Refuse weights that training would never recover from.

    Args:
        weights: key -> value; only tensors are looked at.
        iteration: of the training, for the message.
        settings: what to resume with, for the message.

    Raises:
        UserError: names the first that holds a NaN or an infinity.
    """
    for name, value in weights.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if not torch.isfinite(value).all():
            raise UserError(
                f'{name} is not finite after iteration {iteration}: nothing was saved, '
                'and the checkpoints are unchanged. Resume from the last one '
                f'(resume=True) with {settings}'
            )


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)
    elif isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        for value in content:
            yield from _tensors(value)
