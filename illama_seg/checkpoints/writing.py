"""Write weights as .pth or .safetensors files."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from illama_seg.checkpoints.reading import GRID_KEY, note_grid
from illama_seg.errors import UserError
from illama_seg.files import atomic

SUFFIXES = ('.pth', '.safetensors')


def write_weights(
    weights: Mapping[str, Tensor],
    path: str | Path,
    grid: tuple[int, int] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write weights to a file atomically.

    The same weights give the same bytes, whatever the file's name. A ``.pth`` with
    keys under 'backbone.' has mmengine's layout (``state_dict``, ``meta``), any other
    ``.pth`` that of the released files (``model``); a ``.safetensors`` has no ``meta``.

    Args:
        weights: key -> tensor.
        path: file to write, ``.pth`` or ``.safetensors``; its folder is made.
        grid: (h, w) of the positional embedding, noted in the file.
        meta: plain data, for a ``.pth`` with keys under 'backbone.'.

    Raises:
        UserError: if the suffix is another one.
    """
    with atomic(weights_path(path)) as part:
        save_weights(weights, part, grid, meta)


def save_weights(
    weights: Mapping[str, Tensor],
    path: Path,
    grid: tuple[int, int] | None,
    meta: Mapping[str, Any] | None,
) -> None:
    """Write weights as :func:`write_weights` does, but not atomically."""
    # Copies: no views of larger tensors, and none that share memory.
    state = OrderedDict(
        (key, value.detach().clone(memory_format=torch.contiguous_format))
        for key, value in weights.items()
    )
    if path.suffix == '.safetensors':
        notes = {GRID_KEY: f'{grid[0]}x{grid[1]}'} if grid else {}
        save_file(state, path, {'format': 'pt'} | notes)
        return
    is_ours = any(key.startswith('backbone.') for key in state)
    if grid:
        note_grid(state, 'backbone' if is_ours else '', grid)
    content = {'meta': dict(meta or {}), 'state_dict': state}
    with open(path, 'wb') as file:  # given a name, torch would write it into the file
        torch.save(content if is_ours else {'model': state}, file)


def weights_path(path: str | Path) -> Path:
    """Return a path that :func:`write_weights` can write, with ``~`` expanded.

    Raises:
        UserError: if the suffix is neither ``.pth`` nor ``.safetensors``.
    """
    path = Path(path).expanduser()
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path}: expected a name that ends in {" or ".join(SUFFIXES)}')
    return path
