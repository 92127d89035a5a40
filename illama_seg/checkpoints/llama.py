"""Initial weights from LLaMA-2, by uniform selection."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from illama_seg.checkpoints.checkpoint import listed
from illama_seg.errors import MissingFileError, UserError
from illama_seg.layers import swiglu_hidden_dims
from illama_seg.layers.architectures import resolve_arch

_INDEX = 'model.safetensors.index.json'
_SINGLE = 'model.safetensors'
# Our key in a block -> LLaMA's keys in a layer; more than one are stacked.
_NAMES = {
    'norm1.weight': ('input_layernorm',),
    'attn.qkv.weight': ('self_attn.q_proj', 'self_attn.k_proj', 'self_attn.v_proj'),
    'attn.proj.weight': ('self_attn.o_proj',),
    'norm2.weight': ('post_attention_layernorm',),
    'mlp.fc1.weight': ('mlp.gate_proj',),
    'mlp.fc2.weight': ('mlp.down_proj',),
    'mlp.fc3.weight': ('mlp.up_proj',),
}


def select_llama_weights(
    folder: str | Path, arch: str | Mapping[str, int]
) -> dict[str, Tensor]:
    """Select the weights of iLLaMA's blocks from a LLaMA (arXiv 2404.06773).

    Block i gets layer i, with rows and columns at even distances (weight selection,
    arXiv 2311.18823). LLaMA has no weights for the other parts: patch and position
    embeddings, class token, biases, final norm and classifier.

    Rotary positions turn pairs of channels in queries and keys. Hugging Face stores
    pair i of a head as its rows i and i + d / 2, iLLaMA as (2i, 2i + 1). The paper's
    selection ignores the pairs, and so does this one.

    Only the shards of these layers are opened and only the selected rows are read, so
    that LLaMA-2-7B needs little memory.

    Args:
        folder: Hugging Face LLaMA: ``config.json`` and ``model.safetensors``, or its
            shards with ``model.safetensors.index.json``.
        arch: 'tiny', 'small', 'base' or 'large' (the paper uses the first three), or
            a dict with the keys ``embed_dims``, ``num_layers`` and ``num_heads``.

    Returns:
        Key of the backbone -> tensor, in the dtype of the file.

    Raises:
        MissingFileError: names the missing file.
        UserError: if the folder holds no LLaMA, one that is smaller than ``arch``, or
            a truncated file.
    """
    embed_dims, num_layers, _ = resolve_arch(arch)
    hidden_dims = swiglu_hidden_dims(embed_dims)
    folder = Path(folder).expanduser()
    files = _find_files(folder)
    found = {int(m[1]) for key in files if (m := re.search(r'\blayers\.(\d+)\.', key))}
    if len(found) < num_layers:
        raise UserError(
            f'{folder} has {len(found)} LLaMA layers, arch={arch} needs {num_layers}: '
            'choose a larger LLaMA. First keys found: ' + listed(files)
        )
    shapes = {
        'mlp.fc1.weight': (hidden_dims, embed_dims),
        'mlp.fc2.weight': (embed_dims, hidden_dims),
        'mlp.fc3.weight': (hidden_dims, embed_dims),
    }
    weights = {}
    for layer in range(num_layers):
        for ours, theirs in _NAMES.items():
            shape = shapes.get(ours, (embed_dims, embed_dims))
            parts = []
            for name in theirs:
                key = f'layers.{layer}.{name}.weight'
                parts.append(_select(files, key, shape))
            weights[f'blocks.{layer}.{ours}'] = torch.cat(parts)
    return weights


def uniform_indices(big: int, small: int) -> Tensor:
    """Return ``small`` of the indices 0 .. big - 1, evenly spaced; (small,) int64.

    Raises:
        UserError: if there are fewer.
    """
    if not 1 <= small <= big:
        raise UserError(f'cannot take {small} of {big}')
    if big % small == 0:
        return torch.arange(small) * (big // small)
    return torch.linspace(0, big - 1, small, dtype=torch.float64).round().long()


def _find_files(folder: Path) -> dict[str, Path]:
    """Return key, without a leading 'model.', -> file that holds it."""
    index, single = folder / _INDEX, folder / _SINGLE
    if index.is_file():
        places = _read_json(index).get('weight_map')
        if not isinstance(places, dict):
            raise UserError(f"{index} has no 'weight_map'; download it again")
        files = {key: folder / str(name) for key, name in places.items()}
    elif single.is_file():
        with _opened(single) as file:
            files = dict.fromkeys(file.keys(), single)
    else:
        raise MissingFileError(
            f'{folder} has neither {_INDEX} nor {_SINGLE}: expected a LLaMA in Hugging '
            "Face's format. transformers' save_pretrained converts .bin files"
        )
    return {key.removeprefix('model.'): file for key, file in files.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f'{path} is no JSON: {error}') from error
    if not isinstance(content, dict):
        raise UserError(f'{path} holds a {type(content).__name__}, expected an object')
    return content


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise MissingFileError(
            f'no {path}, a shard that {path.parent / _INDEX} names: download it too'
        )
    try:
        return safe_open(path, 'pt')
    except SafetensorError as error:
        raise UserError(
            f'{path} is truncated, or no safetensors file ({error}): download it again'
        ) from error


def _select(files: Mapping[str, Path], key: str, sizes: tuple[int, int]) -> Tensor:
    """Select entries of a vector, or rows and columns of a matrix, evenly spaced."""
    path = files.get(key)
    if path is None:
        raise UserError(f'no {key}: expected a LLaMA, found the keys {listed(files)}')
    with _opened(path) as file:
        names = file.keys()
        stored = {name.removeprefix('model.'): name for name in names}
        if key not in stored:
            raise UserError(f'{path} lacks {key}, which {_INDEX} puts there')
        part = file.get_slice(stored[key])
        shape = part.get_shape()
        if key.endswith(('k_proj.weight', 'v_proj.weight')) and shape[0] != shape[-1]:
            raise UserError(
                f'{path}: {key} is {shape}, as queries share it in groups: expected a '
                'LLaMA with a key and a value for each head, such as LLaMA-2-7B'
            )
        if any(big < small for big, small in zip(shape, sizes, strict=False)):
            raise UserError(
                f'{path}: {key} is {shape}, arch needs {list(sizes[: len(shape)])}: '
                'choose a larger LLaMA'
            )
        rows = uniform_indices(shape[0], sizes[0])
        # One row at a time, so that the others are never read.
        selected = torch.cat([part[row : row + 1] for row in rows.tolist()])
    if len(shape) == 1:
        return selected
    return selected[:, uniform_indices(shape[1], sizes[1])]
