"""Convert checkpoints between the released names, ours, and safetensors."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from illama_seg.checkpoints.fingerprints import sha256_of
from illama_seg.checkpoints.loading import find_weights, is_grid, listed, noted_grid
from illama_seg.checkpoints.reading import (
    HASH_SUFFIX,
    fetch_checkpoint,
    read_checkpoint,
)
from illama_seg.checkpoints.writing import SUFFIXES, write_weights
from illama_seg.errors import UserError

NAMES = ('released', 'ours')


@dataclass
class ConvertReport:
    """What a conversion read and wrote.

    Attributes:
        source: file that was read.
        target: file that was written.
        names: 'released' or 'ours', the names of the keys in ``target``.
        keys: keys in ``target``.
        num_parameters: numbers in all tensors.
        dtypes: dtype -> number of tensors.
        grid: (h, w) of the positional embedding, if the file notes it.
        left_out: entries of ``source`` that are no weights, such as 'optimizer'.
    """

    source: Path
    target: Path
    names: str
    keys: list[str]
    num_parameters: int
    dtypes: dict[str, int]
    grid: tuple[int, int] | None
    left_out: list[str]

    def __str__(self) -> str:
        dtypes = (f'{name} ({count})' for name, count in self.dtypes.items())
        height, width = self.grid or (0, 0)
        lines = [
            f'{self.source} -> {self.target}',
            f'  keys ({len(self.keys)}, {self.names} names): {listed(self.keys)}',
            f'  parameters: {self.num_parameters:,}',
            f'  dtype: {", ".join(dtypes)}',
            f'  grid: {f"{height} x {width}" if self.grid else "not noted"}',
        ]
        if self.left_out:
            lines.append(f'  left out: {listed(self.left_out)}')
        return '\n'.join(lines)


def convert_checkpoint(
    source: str | Path, target: str | Path, names: str | None = None
) -> ConvertReport:
    """Write the weights of a checkpoint under other names or in another format.

    Only names and container change: every tensor keeps its bits and its dtype, which is
    checked by reading the file that was written. The released names are those of a
    backbone with or without classifier (``blocks.0...``, ``head.weight``), ours those
    of a model around it (``backbone.blocks.0...``, ``head.fc.weight``). The file's
    name gets the first digits of its sha256, as OpenMMLab does (``name-0123abcd.pth``).
    The grid of the positional embedding is kept where it is noted, the names of the
    classes (``meta.dataset_meta``) from one .pth in our names to another.

    Args:
        source: path or URL of a released file, a checkpoint of ours, a bare state dict
            or a ``.safetensors``.
        target: file name that ends in .pth or .safetensors, or a folder that exists:
            then the file is called, and of the kind, as ``source``.
        names: 'released' or 'ours'; those of ``source`` by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read safely, holds no backbone, or more than a
            backbone with a classifier where the released names are asked for.
    """
    if names not in (None, *NAMES):
        raise UserError(f'names={names!r}: expected one of {NAMES}')
    path = fetch_checkpoint(source)
    wanted = _target(path, Path(target).expanduser())
    checkpoint = read_checkpoint(path)
    tensors, holder = find_weights(checkpoint, path)
    prefix = 'backbone.' if any(key.startswith('backbone.') for key in tensors) else ''
    if not any(key.startswith(f'{prefix}blocks.') for key in tensors):
        raise UserError(
            f'{path} holds no backbone: expected keys such as {prefix}blocks.0.norm1.'
            f'weight, found {listed(tensors)}'
        )
    source_names = 'ours' if prefix else 'released'
    names = names or source_names
    weights = _renamed(tensors, source_names, names, path)
    grid = noted_grid(holder, prefix.rstrip('.'))
    positions = tensors.get(f'{prefix}pos_embed')
    if positions is None or not is_grid(grid, positions.shape[1] - 1):
        grid = None
    meta, left_out = _beside(checkpoint, holder)
    if meta and (names == 'released' or wanted.suffix != '.pth'):
        left_out.append('meta.dataset_meta')
    named = _write(weights, wanted, grid, meta)
    dtypes = [str(value.dtype).removeprefix('torch.') for value in weights.values()]
    return ConvertReport(
        source=path,
        target=named,
        names=names,
        keys=list(weights),
        num_parameters=sum(value.numel() for value in weights.values()),
        dtypes=dict(Counter(dtypes)),
        grid=grid,
        left_out=left_out,
    )


def _target(source: Path, target: Path) -> Path:
    if target.suffix in SUFFIXES:
        return target
    if not target.is_dir():
        raise UserError(
            f'{target}: expected a folder that exists, or a name that ends in '
            f'{" or ".join(SUFFIXES)}'
        )
    suffix = source.suffix if source.suffix in SUFFIXES else '.pth'
    # Not with_suffix: '-75.0' is no suffix.
    return target / (source.name.removesuffix(source.suffix) + suffix)


def _renamed(
    tensors: Mapping[str, Tensor], source_names: str, names: str, path: Path
) -> dict[str, Tensor]:
    if names == source_names:
        return dict(tensors)
    if names == 'ours':
        return our_names(tensors)
    known = ('backbone.', 'head.fc.')
    if others := [key for key in tensors if not key.startswith(known)]:
        raise UserError(
            f'{path} holds more than a backbone with a classifier ({listed(others)}), '
            'for which there are no released names: keep ours, or save load_released('
            "FILE), the backbone's weights alone"
        )
    return {
        key.removeprefix('backbone.').replace('head.fc.', 'head.'): value
        for key, value in tensors.items()
    }


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released classifier's weights under the names of an ``ImageClassifier``."""
    return {
        'head.fc.' + key.removeprefix('head.')
        if key.startswith('head.')
        else 'backbone.' + key: value
        for key, value in tensors.items()
    }


def _beside(
    checkpoint: Mapping[str, Any], holder: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The classes of a data set, and the names of all else that is no weight."""
    others = [str(key) for key, value in holder.items() if not _is_tensor(value)]
    if holder is checkpoint:
        return {}, others
    others += [str(key) for key, value in checkpoint.items() if value is not holder]
    meta = checkpoint.get('meta')
    if not isinstance(meta, Mapping) or 'dataset_meta' not in meta:
        return {}, others
    others.remove('meta')
    others += [f'meta.{key}' for key in meta if key != 'dataset_meta']
    return {'dataset_meta': meta['dataset_meta']}, others


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _write(
    weights: Mapping[str, Tensor],
    wanted: Path,
    grid: tuple[int, int] | None,
    meta: Mapping[str, Any],
) -> Path:
    """Write, read again, and move to the name with the digest."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own: `wanted` may be the source itself.
    with tempfile.TemporaryDirectory(dir=wanted.parent) as folder:
        part = Path(folder) / wanted.name
        write_weights(weights, part, grid, meta)
        written, _ = find_weights(read_checkpoint(part, mmap=True), part)
        assert written.keys() == weights.keys()
        assert all(_are_same(written[key], weights[key]) for key in weights)
        plain = HASH_SUFFIX.sub(wanted.suffix, wanted.name).removesuffix(wanted.suffix)
        named = wanted.with_name(f'{plain}-{sha256_of(part)[:8]}{wanted.suffix}')
        os.replace(part, named)
    return named


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, also where they are not numbers."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    one, other = (x.contiguous().flatten().view(torch.uint8) for x in (one, other))
    return torch.equal(one, other)
