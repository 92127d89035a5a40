"""Fit a checkpoint to a whole segmentor or classifier."""

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from illama_seg.checkpoints.checkpoint import Checkpoint, open_checkpoint
from illama_seg.checkpoints.convert import our_names
from illama_seg.checkpoints.loading import sort_keys
from illama_seg.checkpoints.report import LoadReport, log_report

_PREFIX = 'backbone.'


def fit_to_model(
    model: nn.Module,
    source: Checkpoint | str | Path,
    logger: logging.Logger | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the weights of a checkpoint that fit a model, and report on every key.

    The backbone's are fitted as :func:`load_into_backbone` does; a file of a backbone
    alone, or with the classifier of the released files, may have no prefixes. Heads of
    another size are left out. Logs the report, with warnings.

    Args:
        model: segmentor or classifier with the attribute ``backbone``, or any other
            module, whose keys and shapes have to be those of the file.
        source: checkpoint, local path or http(s) URL.
        logger: logger of the report; 'illama_seg' by default.

    Raises:
        MissingFileError, ConnectionError: see :func:`open_checkpoint`.
        UserError: if the file cannot be read safely, holds no key of the backbone, or
            is of another size.
    """
    checkpoint = open_checkpoint(source)
    weights, grid = checkpoint.weights, checkpoint.grid
    report = LoadReport(str(checkpoint), 'model')
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, nn.Module):
        fitted = sort_keys(dict(weights), grid, model, report, 'load_from=None')
        log_report(report, logger or logging.getLogger('illama_seg'))
        return fitted, report
    if not checkpoint.prefix:
        weights = our_names(weights)
    inner = {k.removeprefix(_PREFIX): v for k, v in weights.items() if _is_inner(k)}
    part = LoadReport(str(checkpoint))
    found = sort_keys(inner, grid, backbone, part, 'load_from=None')
    for field in fields(part):
        if isinstance(keys := getattr(part, field.name), list):
            getattr(report, field.name).extend(map(_prefixed, keys))
    fitted = {_PREFIX + key: value for key, value in found.items()}
    target = model.state_dict()
    for key, value in weights.items():
        if _is_inner(key):
            continue
        if key not in target:
            report.unexpected.append(key)
        elif value.shape == target[key].shape:
            report.matched.append(key)
            fitted[key] = value
        else:
            shapes = tuple(value.shape), tuple(target[key].shape)
            report.left_out.append((key, *shapes))
    report.missing += [k for k in target if k not in weights and not _is_inner(k)]
    log_report(report, logger or logging.getLogger('illama_seg'))
    return fitted, report


def all_weights(
    model: nn.Module, checkpoint: Checkpoint
) -> tuple[dict[str, Tensor], list[str]]:
    """Return a checkpoint's weights for a model that is to have all of them.

    Args:
        model: segmentor or classifier.
        checkpoint: of it; a released classifier gets our names.

    Returns:
        The weights, and what keeps them from being all of the model's, a line for each
        key.
    """
    weights, expected = checkpoint.weights, model.state_dict()
    if any(key.startswith('blocks.') for key in weights):
        weights = our_names(weights)
    faults = [
        f'{key}: the file has {tuple(weights[key].shape)}, the model '
        f'{tuple(expected[key].shape)}'
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    faults += [f'{key}: not in the file' for key in expected if key not in weights]
    faults += [f'{key}: not in the model' for key in weights if key not in expected]
    noted = checkpoint.grid
    own: Any = getattr(getattr(model, 'backbone', None), 'grid_size', noted)
    if noted is not None and not faults and tuple(own) != noted:
        faults.append(
            f'{_PREFIX}pos_embed: the file has a grid of {noted}, the model {own}'
        )
    _compare_masks(model, checkpoint)
    return weights, faults


def _compare_masks(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Warn of a soft mask that is not the one of the training's config."""
    own = getattr(getattr(model, 'backbone', None), 'trained_mask', None)
    noted = checkpoint.soft_mask
    if own is None or noted is None or tuple(own) == tuple(noted):
        return
    names = 'soft_mask_rate', 'soft_mask_norm', 'closed blocks'
    pairs = zip(names, noted, own, strict=True)
    differ = [f'{name} {file} (now {new})' for name, file, new in pairs if file != new]
    logging.getLogger('illama_seg').warning(
        '%s was trained for another soft mask: %s; use the model.backbone of the '
        "training's config",
        checkpoint,
        ', '.join(differ),
    )


def _is_inner(key: str) -> bool:
    return key.startswith(_PREFIX)


def _prefixed(entry: str | tuple) -> str | tuple:
    if isinstance(entry, str):
        return _PREFIX + entry
    return _PREFIX + entry[0], *entry[1:]
