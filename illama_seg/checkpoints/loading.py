"""Load released iLLaMA files and our own checkpoints into a backbone."""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from illama_seg.checkpoints.reading import GRID_KEY, fetch_checkpoint, read_checkpoint
from illama_seg.checkpoints.released import SIZES
from illama_seg.errors import UserError
from illama_seg.layers.pos_embed import resize_pos_embed

_MAX_LISTED = 8


@dataclass
class LoadReport:
    """What became of each key of a checkpoint and of a backbone.

    Attributes:
        source: path or URL of the checkpoint.
        matched: keys that were loaded.
        missing: keys of the backbone that the checkpoint lacks.
        unexpected: keys of the checkpoint that the backbone has no use for.
        resized: (key, shape in the file, shape in the backbone), loaded after resizing.
        ignored: classifier or segmentor heads, and parts of the backbone not built.
        left_out: the same of a classifier of another number of classes, not loaded.
        mismatched: (key, shape in the file, shape in the backbone), not loaded.
    """

    source: str
    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    resized: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list
    )
    ignored: list[str] = field(default_factory=list)
    left_out: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list
    )
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list
    )

    @property
    def summary(self) -> str:
        """One line: the keys that were loaded, resized, missing."""
        resized, missing = [key for key, *_ in self.resized], self.missing
        return ', '.join(
            [
                self._loaded(),
                f'{len(resized)} resized{f" ({listed(resized)})" if resized else ""}',
                f'{len(missing)} missing{f" ({listed(missing)})" if missing else ""}',
            ]
        )

    def _loaded(self) -> str:
        total = len(self.matched) + len(self.missing)
        total += len(self.left_out) + len(self.mismatched)
        return f'{self.source}: loaded {len(self.matched)} of {total} backbone keys'

    def __str__(self) -> str:
        lines = [self._loaded()]
        for kind in ('resized', 'left_out', 'mismatched'):
            lines += [
                f'  {kind}: {k} {old} -> {new}' for k, old, new in vars(self)[kind]
            ]
        for kind in ('missing', 'unexpected', 'ignored'):
            if keys := vars(self)[kind]:
                lines.append(f'  {kind} ({len(keys)}): {listed(keys)}')
        return '\n'.join(lines)


def load_released(path: str | Path) -> dict[str, Tensor]:
    """Backbone weights of a checkpoint, in our names, which are the released ones.

    Takes a released file (weights under 'model'), an mmengine checkpoint ('state_dict';
    of a whole segmentor or classifier, the keys under 'backbone.'; the averaged weights
    if the run had an EMAHook), a bare state dict, and ``.safetensors``. The classifier
    of a released file comes along as ``head.weight`` and ``head.bias``.

    Args:
        path: local path or http(s) URL.

    Returns:
        Key -> tensor on the CPU, in the dtype of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a URL cannot be reached.
        ValueError: if the file is no checkpoint, or asks for code to be run.
    """
    # A copy: a mapped tensor would crash the process once the file is overwritten.
    return {key: value.clone() for key, value in _read_weights(path)[0].items()}


def load_into_backbone(
    backbone: nn.Module,
    path_or_url: str | Path,
    logger: logging.Logger | None = None,
) -> LoadReport:
    """Load a checkpoint into a backbone, at any resolution, and report on every key.

    The positional embedding is resized to ``backbone.grid_size``, from the grid that
    our own .pth files note, else from a square one; tensors are cast to the dtype of
    the parameters. A classifier (``head``) of another number of classes is left out.
    The report is logged; that, keys of the backbone that the file lacks, and unknown
    keys of the file are logged again as warnings.

    Args:
        backbone: module with the parameter ``pos_embed`` and the attributes
            ``grid_size``, the (h, w) that it is made for, and ``cls_position``.
        path_or_url: see ``load_released``.
        logger: where the report goes; the logger 'illama_seg' by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a URL cannot be reached.
        ValueError: if the file cannot be read safely, holds no key of the backbone, or
            is of another size.
    """
    logger = logger or logging.getLogger('illama_seg')
    weights, heads, noted = _read_weights(path_or_url)
    target = backbone.state_dict()
    source = str(path_or_url)
    if source.startswith(('http://', 'https://')):
        kept = fetch_checkpoint(source)
        source = f'{source} (kept in {kept}; delete it to download it again)'
    report = LoadReport(source, ignored=heads)
    if weights.keys().isdisjoint(target):
        raise UserError(
            f'{source} holds no key of the backbone.\n  first keys found: '
            f'{listed(weights)}\n  first keys expected: {listed(target)}'
        )
    if 'pos_embed' in weights and 'pos_embed' in target:
        _fit_pos_embed(weights, noted, target['pos_embed'], backbone, report)
    for key, value in weights.items():
        if key not in target:
            unused = _is_not_built(key, target)
            (report.ignored if unused else report.unexpected).append(key)
        elif value.shape == target[key].shape:
            report.matched.append(key)
        else:
            shapes = tuple(value.shape), tuple(target[key].shape)
            left_out = key.startswith('head.') and value.shape[1:] == shapes[1][1:]
            (report.left_out if left_out else report.mismatched).append((key, *shapes))
    report.missing = [key for key in target if key not in weights]
    if report.mismatched:
        raise UserError(_explain_mismatch(report, weights, target))
    backbone.load_state_dict({k: weights[k] for k in report.matched}, strict=False)
    logger.info('%s', report)
    if report.missing:
        logger.warning('not in the checkpoint, left as is: %s', listed(report.missing))
    if report.left_out:
        (theirs, *_), (ours, *_) = report.left_out[0][1:]
        logger.warning(
            'classifier left out, initialised anew: it has %d classes in the '
            'checkpoint and %d in the model',
            theirs,
            ours,
        )
    if report.unexpected:
        logger.warning('of no use to the model: %s', listed(report.unexpected))
    return report


def load_classifier(path_or_url: str | Path) -> dict[str, Tensor]:
    """Weight (num_classes, C) and bias (num_classes,) of a checkpoint's classifier.

    Args:
        path_or_url: see ``load_released``.

    Returns:
        'weight' and 'bias' on the CPU; empty if the file has no classifier.

    Raises:
        FileNotFoundError: if there is no such file.
        ConnectionError: if a URL cannot be reached.
        ValueError: if the file is no checkpoint, or asks for code to be run.
    """
    tensors = _read_tensors(path_or_url)[0]
    for prefix in ('head.fc.', 'head.'):  # ours and mmpretrain's, the released files'
        keys = {key: prefix + key for key in ('weight', 'bias')}
        if tensors.keys() >= set(keys.values()):
            return {key: tensors[name].clone() for key, name in keys.items()}
    return {}


def _read_weights(
    path_or_url: str | Path,
) -> tuple[dict[str, Tensor], list[str], Any]:
    """Backbone weights, keys of a segmentor's or classifier's heads, grid if noted."""
    tensors, weights = _read_tensors(path_or_url)
    prefix = 'backbone.'
    if not any(key.startswith(prefix) for key in tensors):
        return tensors, [], noted_grid(weights, '')
    heads = [key for key in tensors if not key.startswith(prefix)]
    inside = (key for key in tensors if key.startswith(prefix))
    grid = noted_grid(weights, 'backbone')
    return {key.removeprefix(prefix): tensors[key] for key in inside}, heads, grid


def _read_tensors(
    path_or_url: str | Path,
) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """All tensors of a file, and the mapping that held them, with its notes."""
    checkpoint = read_checkpoint(fetch_checkpoint(path_or_url), mmap=True)
    return find_weights(checkpoint, path_or_url)


def find_weights(
    checkpoint: Mapping[str, Any], source: str | Path
) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Tensors of a checkpoint, and the dict that they stand in.

    Raises:
        ValueError: names ``source``, if there are none.
    """
    weights = checkpoint
    for key in ('model', 'state_dict'):
        if isinstance(checkpoint.get(key), Mapping):
            weights = checkpoint[key]
            break
    tensors = {
        str(key).removeprefix('module.'): value
        for key, value in weights.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise UserError(
            f'{source} holds no weights: expected tensors, by themselves or under '
            f"'model' or 'state_dict', found the keys {listed(checkpoint)}"
        )
    return tensors, weights


def noted_grid(weights: Mapping[str, Any], module: str) -> Any:
    """What the file says, in the metadata that torch keeps with a state dict."""
    notes = getattr(weights, '_metadata', None)
    note = notes.get(module) if isinstance(notes, Mapping) else None
    return note.get(GRID_KEY) if isinstance(note, Mapping) else None


def is_grid(noted: Any, num_patches: int) -> bool:
    if not isinstance(noted, tuple) or len(noted) != 2:
        return False
    return all(type(n) is int for n in noted) and math.prod(noted) == num_patches


def _fit_pos_embed(
    weights: dict[str, Tensor],
    noted: Any,
    wanted: Tensor,
    backbone: nn.Module,
    report: LoadReport,
) -> None:
    pos_embed = weights['pos_embed']
    old, new = tuple(pos_embed.shape), tuple(wanted.shape)
    if len(old) != 3 or old[::2] != new[::2] or old[1] < 2:
        return
    grid_size: Any = backbone.grid_size
    new_grid, num_patches = tuple(grid_size), old[1] - 1
    side = math.isqrt(num_patches)
    if is_grid(noted, num_patches):
        grid = noted
    elif side * side == num_patches:  # as all released files
        grid = side, side
    elif old == new:  # nothing says that the shape is another one
        grid = new_grid
    else:
        raise UserError(
            f'{report.source}: pos_embed has {num_patches} patch positions, which make '
            f'no square grid, so it cannot be resized to the {new[1] - 1} of the '
            'model. A .pth written by tools/train.py notes its grid; a file without '
            'that needs model.backbone.img_size to be the size it was trained at'
        )
    if grid == new_grid:
        return
    cls_position: Any = backbone.cls_position
    weights['pos_embed'] = resize_pos_embed(
        pos_embed.float(), grid, new_grid, cls_position
    )
    report.resized.append(('pos_embed', old, new))


def _is_not_built(key: str, target: Mapping[str, Tensor]) -> bool:
    """Whether a released file has this key and the model, by its options, has not.

    The classifier; the final norm, where feature maps are wanted; the blocks after
    the last one that is read.
    """
    if key.startswith('blocks.'):
        index = key.split('.')[1]
        return index.isdecimal() and int(index) >= _num_blocks(target)
    if key.startswith('norm.'):
        return 'norm.weight' not in target
    return key.startswith('head.')


def _explain_mismatch(
    report: LoadReport, weights: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> str:
    key, old, new = report.mismatched[0]
    lines = [
        f'{report.source} does not fit the model: {key} is {old} in the file and {new} '
        f'in the model ({len(report.mismatched)} such keys).'
    ]
    gated, wants_gate = (
        any(key.endswith('mlp.fc3.weight') for key in of) for of in (weights, target)
    )
    if gated and not wants_gate:
        lines.append("The file has mlp.fc3, iLLaMA's; the model has ffn='mlp'.")
    elif wants_gate and not gated:
        lines.append('The file has no mlp.fc3, so it is no iLLaMA: an ordinary ViT?')
    elif _width(weights) != _width(target):
        lines.append(
            f'The file looks like {_size(weights)}; the model is {_size(target)}. Use '
            'the checkpoint of the same size, or set model.backbone.arch to that of '
            'the file.'
        )
    else:
        lines.append(
            f'Both look like {_size(target)}: make patch_size, in_channels and the '
            'feed-forward of the model those of the file, or use another checkpoint.'
        )
    lines.append('To train from scratch: --cfg-options model.backbone.init_cfg=None')
    return '\n'.join(lines)


def _width(weights: Mapping[str, Tensor]) -> int:
    for key in ('cls_token', 'pos_embed', 'blocks.0.norm1.weight'):
        if key in weights:
            return weights[key].shape[-1]
    return 0


def _num_blocks(weights: Mapping[str, Tensor]) -> int:
    return len({key.split('.')[1] for key in weights if key.startswith('blocks.')})


def _size(weights: Mapping[str, Tensor]) -> str:
    width, num_blocks = _width(weights), _num_blocks(weights)
    # A model may stop at the last block that is read, so it may have fewer blocks.
    name, max_blocks = SIZES.get(width, ('', 0))
    known = num_blocks <= max_blocks
    label = f'iLLaMA-{name}' if known else 'an iLLaMA of custom size'
    return f'{label} ({width} wide, {num_blocks} blocks)'


def listed(keys: Iterable[str]) -> str:
    keys = [str(key) for key in keys]
    rest = len(keys) - _MAX_LISTED
    more = f', ... and {rest} more' if rest > 0 else ''
    return ', '.join(keys[:_MAX_LISTED]) + more
