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

from illama_seg.checkpoints.checkpoint import Checkpoint, listed, open_checkpoint
from illama_seg.checkpoints.lora import merge_adapters
from illama_seg.checkpoints.reading import HASH_SUFFIX
from illama_seg.checkpoints.writing import SUFFIXES, save_weights
from illama_seg.errors import UserError
from illama_seg.files import digest_of

NAMES = ('released', 'ours')


@dataclass
class ConvertReport:
    """Summary of a conversion.

    Attributes:
        source: file that was read.
        target: file that was written.
        names: 'released' or 'ours': naming scheme of the keys in ``target``.
        keys: keys in ``target``.
        num_parameters: number of values in all tensors.
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
    source: Checkpoint | str | Path,
    target: str | Path,
    names: str | None = None,
    *,
    merge_lora: bool = False,
) -> ConvertReport:
    """Write the weights of a checkpoint under other names or in another format.

    Only names and container change, unless adapters are merged: every tensor keeps its
    bits and its dtype; the written file is read again to check that. The released names
    are those of a backbone with or without classifier (``blocks.0...``,
    ``head.weight``), ours those of a model around it (``backbone.blocks.0...``,
    ``head.fc.weight``). The file's name gets the first digits of its sha256, as
    OpenMMLab does (``name-0123abcd.pth``).
    A noted grid of the positional embedding is kept; the names of the classes
    (``meta.dataset_meta``) are kept from one .pth in our names to another.

    Args:
        source: checkpoint, path or URL.
        target: file name that ends in .pth or .safetensors, or an existing folder:
            then name and suffix are those of ``source``.
        names: 'released' or 'ours'; those of ``source`` by default.
        merge_lora: add the adapters of a training with ``lora`` to the weights: the
            file is that of a model without adapters, with equal outputs up to rounding.

    Raises:
        MissingFileError, ConnectionError: see :func:`open_checkpoint`.
        UserError: if the file cannot be read safely, holds no backbone, no adapters to
            merge, or more than a backbone with a classifier, for which there are no
            released names.
    """
    if names not in (None, *NAMES):
        raise UserError(f'expected one of {NAMES}', names=names)
    checkpoint = open_checkpoint(source)
    path, tensors, prefix = checkpoint.path, checkpoint.weights, checkpoint.prefix
    renamed = _target(path, Path(target).expanduser())
    if not any(key.startswith(f'{prefix}blocks.') for key in tensors):
        raise UserError(
            f'{path} holds no backbone: expected keys such as {prefix}blocks.0.norm1.'
            f'weight, found {listed(tensors)}'
        )
    if merge_lora:
        tensors = merge_adapters(tensors)
    source_names = 'ours' if prefix else 'released'
    names = names or source_names
    weights = _renamed(tensors, source_names, names, path)
    meta, left_out = _beside(checkpoint)
    if meta and (names == 'released' or renamed.suffix != '.pth'):
        left_out.append('meta.dataset_meta')
    named = _write(weights, renamed, checkpoint.grid, meta)
    dtypes = [str(value.dtype).removeprefix('torch.') for value in weights.values()]
    return ConvertReport(
        source=path,
        target=named,
        names=names,
        keys=list(weights),
        num_parameters=sum(value.numel() for value in weights.values()),
        dtypes=dict(Counter(dtypes)),
        grid=checkpoint.grid,
        left_out=left_out,
    )


def _target(source: Path, target: Path) -> Path:
    if target.suffix in SUFFIXES:
        return target
    if not target.is_dir():
        raise UserError(
            'expected an existing folder, or a name that ends in '
            + ' or '.join(SUFFIXES),
            target=str(target),
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
            "for which there are no released names: use names='ours', or save "
            "load_released(FILE), the backbone's weights alone"
        )
    return {
        key.removeprefix('backbone.').replace('head.fc.', 'head.'): value
        for key, value in tensors.items()
    }


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a released classifier's weights to those of an ``ImageClassifier``."""
    return {
        'head.fc.' + key.removeprefix('head.')
        if key.startswith('head.')
        else 'backbone.' + key: value
        for key, value in tensors.items()
    }


def _beside(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """Return the classes of the data set, and the names of all other non-weights."""
    content, container = checkpoint.content, checkpoint.container
    others = [str(k) for k, value in container.items() if not isinstance(value, Tensor)]
    if container is content:
        return {}, others
    others += [str(key) for key, value in content.items() if value is not container]
    meta = content.get('meta')
    if not isinstance(meta, Mapping) or 'dataset_meta' not in meta:
        return {}, others
    others.remove('meta')
    others += [f'meta.{key}' for key in meta if key != 'dataset_meta']
    return {'dataset_meta': meta['dataset_meta']}, others


def _write(
    weights: Mapping[str, Tensor],
    target: Path,
    grid: tuple[int, int] | None,
    meta: Mapping[str, Any],
) -> Path:
    """Write, read again, and rename to the name with the digest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        save_weights(weights, part, grid, meta)
        written = open_checkpoint(part).weights
        assert written.keys() == weights.keys()
        assert all(_are_same(written[key], weights[key]) for key in weights)
        stem = HASH_SUFFIX.sub(target.suffix, target.name).removesuffix(target.suffix)
        digest = digest_of(part, 'sha256')[:8]
        named = target.with_name(f'{stem}-{digest}{target.suffix}')
        os.replace(part, named)
    return named


def _are_same(one: Tensor, other: Tensor) -> bool:
    """Compare bit for bit, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    one, other = (x.contiguous().flatten().view(torch.uint8) for x in (one, other))
    return torch.equal(one, other)
