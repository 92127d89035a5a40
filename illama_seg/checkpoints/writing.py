"""Write weights as files that the readers here take."""

import os
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from illama_seg.checkpoints.reading import GRID_KEY, note_grid
from illama_seg.errors import UserError

SUFFIXES = ('.pth', '.safetensors')


def write_weights(
    weights: Mapping[str, Tensor],
    path: str | Path,
    grid: tuple[int, int] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write weights to a file, which appears once it is complete.

    The same weights give the same bytes, whatever the file is called. A ``.pth`` with
    keys under 'backbone.' is laid out as mmengine does it (``state_dict``, ``meta``),
    any other as the released ones (``model``); a ``.safetensors`` holds no ``meta``.

    Args:
        weights: key -> tensor.
        path: file to write, ``.pth`` or ``.safetensors``; its folder is made.
        grid: (h, w) of the positional embedding, noted in the file.
        meta: plain data, for a ``.pth`` with keys under 'backbone.'.

    Raises:
        ValueError: if the suffix is another one.
    """
    path = weights_path(path)
    # Copies: no views of larger tensors, and none that share memory.
    state = OrderedDict(
        (key, value.detach().clone(memory_format=torch.contiguous_format))
        for key, value in weights.items()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        if path.suffix == '.safetensors':
            notes = {GRID_KEY: f'{grid[0]}x{grid[1]}'} if grid else {}
            save_file(state, part, {'format': 'pt'} | notes)
        else:
            is_ours = any(key.startswith('backbone.') for key in state)
            if grid:
                note_grid(state, 'backbone' if is_ours else '', grid)
            content = {'meta': dict(meta or {}), 'state_dict': state}
            with open(part, 'wb') as file:  # by its name torch would put it inside
                torch.save(content if is_ours else {'model': state}, file)
        os.replace(part, path)


def weights_path(path: str | Path) -> Path:
    """Where :func:`write_weights` can write.

    Raises:
        ValueError: if the suffix is neither ``.pth`` nor ``.safetensors``.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path}: expected a name that ends in {" or ".join(SUFFIXES)}')
    return path
