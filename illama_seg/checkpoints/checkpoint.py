"""A checkpoint that is fetched and read once, for every function that loads one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from illama_seg.checkpoints.reading import (
    GRID_KEY,
    MASK_KEY,
    fetch_checkpoint,
    read_checkpoint,
)
from illama_seg.errors import UserError

_MAX_LISTED = 8


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        source: path or URL that was opened.
        path: the local file.
        content: everything in the file, see :func:`read_checkpoint`.
    """

    source: str
    path: Path
    content: dict[str, Any]

    def __str__(self) -> str:
        """Return the source for a message; of a URL also the downloaded file."""
        if Path(self.source).expanduser() == self.path:
            return self.source
        return f'{self.source} (kept in {self.path}; delete it to download it again)'

    @cached_property
    def container(self) -> Mapping[str, Any]:
        """Mapping that holds the weights: 'model', 'state_dict' or the whole file."""
        held = (self.content.get(key) for key in ('model', 'state_dict'))
        return next(
            (found for found in held if isinstance(found, Mapping)), self.content
        )

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """All tensors by their keys, on the CPU, in the dtype of the file.

        They may be mapped from the file: copy what must outlive it.

        Raises:
            UserError: if there are none.
        """
        tensors = {
            str(key).removeprefix('module.'): value
            for key, value in self.container.items()
            if isinstance(value, Tensor)
        }
        if not tensors:
            raise UserError(
                f'{self} holds no weights: expected tensors, by themselves or under '
                f"'model' or 'state_dict', found the keys {listed(self.content)}"
            )
        return tensors

    @cached_property
    def prefix(self) -> str:
        """Prefix of the backbone's keys: 'backbone.', or '' in the released files."""
        ours = any(key.startswith('backbone.') for key in self.weights)
        return 'backbone.' if ours else ''

    @property
    def backbone(self) -> dict[str, Tensor]:
        """Weights of the backbone without prefix; with the head of a released file."""
        return {
            key.removeprefix(self.prefix): value
            for key, value in self.weights.items()
            if key.startswith(self.prefix)
        }

    @property
    def heads(self) -> list[str]:
        """Keys outside the backbone of a segmentor or classifier."""
        return [key for key in self.weights if not key.startswith(self.prefix)]

    @property
    def classifier(self) -> dict[str, Tensor]:
        """'weight' (num_classes, C) and 'bias' (num_classes,), or nothing."""
        for prefix in ('head.fc.', 'head.'):  # our names, the released ones
            names = {key: prefix + key for key in ('weight', 'bias')}
            if self.weights.keys() >= set(names.values()):
                return {key: self.weights[name] for key, name in names.items()}
        return {}

    @property
    def grid(self) -> tuple[int, int] | None:
        """(h, w) of the positional embedding, if the file has a note that fits it."""
        grid = self._note(GRID_KEY)
        positions = self.weights.get(f'{self.prefix}pos_embed')
        if positions is None or not isinstance(grid, tuple) or len(grid) != 2:
            return None
        fits = all(type(side) is int for side in grid)
        return grid if fits and positions.shape[1:2] == (math.prod(grid) + 1,) else None

    @property
    def soft_mask(self) -> tuple[float, float, int] | None:
        """Rate, norm and closed blocks of the training's config, if they are noted."""
        found = self._note(MASK_KEY)
        numbers = isinstance(found, tuple) and len(found) == 3
        return found if numbers else None  # type: ignore[return-value]

    def _note(self, key: str) -> object:
        """Return what a backbone noted beside its weights."""
        notes = getattr(self.container, '_metadata', None)
        note = notes.get(self.prefix[:-1]) if isinstance(notes, Mapping) else None
        return note.get(key) if isinstance(note, Mapping) else None

    @property
    def dataset_meta(self) -> dict[str, Any]:
        """Classes, palette and the like of the training's data; empty if not known."""
        meta = self.content.get('meta')
        known = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
        return dict(known) if isinstance(known, Mapping) else {}


# Checkpoints that somebody still holds: these are not read again.
_in_use: WeakValueDictionary[tuple, Checkpoint] = WeakValueDictionary()


def open_checkpoint(
    source: Checkpoint | str | Path, folder: str | Path | None = None
) -> Checkpoint:
    """Fetch and read a checkpoint without running any code in it.

    Reads a released file (weights under 'model'), an mmengine checkpoint
    ('state_dict'), a bare state dict, and ``.safetensors``. Tensors stay in the file
    until they are used, where the format allows it. A checkpoint that is still in use
    is returned again while its file is the same.

    Args:
        source: local path or http(s) URL; a checkpoint is returned as it is.
        folder: where downloads are kept; torch hub's cache by default.

    Raises:
        MissingFileError: if there is no such file.
        ConnectionError: if a URL cannot be reached.
        UserError: if the file is no checkpoint, or asks for code to be run.
    """
    if isinstance(source, Checkpoint):
        return source
    path = fetch_checkpoint(source, folder)
    stat = path.stat() if path.is_file() else None
    key = str(source), path, stat and (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    found = _in_use.get(key)
    if found is None:
        found = Checkpoint(str(source), path, read_checkpoint(path, mmap=True))
        _in_use[key] = found
    return found


def listed(keys: Iterable[str]) -> str:
    """Return the first keys and the number of the others."""
    keys = [str(key) for key in keys]
    rest = len(keys) - _MAX_LISTED
    more = f', ... and {rest} more' if rest > 0 else ''
    return ', '.join(keys[:_MAX_LISTED]) + more
