"""Load trained models and their data set's metadata."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.apis import init_model
from torch import nn

from illama_seg.apis.configs import config_folder, get_config
from illama_seg.apis.model_rules import MOST_CLASSES
from illama_seg.apis.user_errors import check_segmentation, options_explained
from illama_seg.checkpoints import Checkpoint, all_weights, is_lora, open_checkpoint
from illama_seg.deploy import Sidecar, is_exported, read_sidecar
from illama_seg.deploy.in_place import with_exported
from illama_seg.errors import UserError
from illama_seg.heads import fold_for_inference


def load_segmentor(
    config: str | Path | Config,
    checkpoint: Checkpoint | str | Path,
    device: str | None = None,
    *,
    fold: bool = False,
) -> nn.Module:
    """Build a segmentor and load all its weights, without running code from the file.

    Args:
        config: config, or path of one.
        checkpoint: file or URL of a checkpoint of this segmentor, or a file that
            :func:`export_model` wrote, which runs on the CPU.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.
        fold: fold batch normalisations into convolutions, for inference alone: the
            same outputs to rounding in less time, but another state dict.

    Returns:
        The model in eval mode, as ``mmseg.apis.init_model`` returns it, with
        ``dataset_meta`` (classes and palette).

    Raises:
        MissingFileError: if a file is missing.
        UserError: if the config has no segmentor, the checkpoint is of another model or
            cannot be read safely, has too many classes, or there is no such device.
    """
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    check_segmentation(cfg)
    if is_exported(str(checkpoint)):
        return _load_exported(cfg, str(checkpoint))
    checkpoint = open_checkpoint(checkpoint)
    device = usable_device(device)
    with options_explained(cfg):
        model = init_model(cfg, None, device)
    load_weights(model, checkpoint)
    meta = checkpoint.dataset_meta
    if not meta:
        raise UserError(
            f'{checkpoint.source} has no class names (meta.dataset_meta): expected a '
            'checkpoint written by a training'
        )
    if len(meta.get('classes') or ()) > MOST_CLASSES:
        raise UserError(
            f'{checkpoint.source} is of {len(meta["classes"])} classes: expected '
            f'{MOST_CLASSES} or fewer, as label images have 8 bits'
        )
    model.dataset_meta = meta
    return fold_for_inference(model) if fold else model


def _load_exported(cfg: Config, file: str) -> nn.Module:
    sidecar = read_sidecar(file)
    cfg = with_exported(cfg, file)
    with options_explained(cfg):
        model = init_model(cfg, None, 'cpu')
    model.dataset_meta = exported_meta(sidecar)
    return model


def exported_meta(sidecar: Sidecar) -> dict[str, Any]:
    """Return the metadata of the data set of an exported file."""
    return dict(
        classes=tuple(sidecar.classes),
        palette=sidecar.palette,
        label_map={label: number for number, label in enumerate(sidecar.ids)},
    )


def load_model(cfg: Config, source: Checkpoint | str | Path) -> nn.Module:
    """Build a segmentor or classifier on the CPU and load all its weights.

    Where the checkpoint has step sizes of 8 bits, ``ILLaMA`` is ``QuantizedILLaMA``.

    Args:
        cfg: config; ``model`` is changed so that no other weights are loaded.
        source: checkpoint of this model.

    Returns:
        The model in eval mode, with ``dataset_meta``: the checkpoint's, or of a
        classifier's data set.

    Raises:
        MissingFileError: if a file is missing.
        UserError: see :func:`load_segmentor`.
    """
    checkpoint = open_checkpoint(source)
    backbone = cfg.model.backbone
    cfg.model.init_cfg = backbone.init_cfg = None
    if backbone.type in ('ILLaMA', 'QuantizedILLaMA'):
        has_steps = any(key.endswith('.weight_step') for key in checkpoint.weights)
        backbone.type = 'QuantizedILLaMA' if has_steps else 'ILLaMA'
    if 'decode_head' in cfg.model:
        return load_segmentor(cfg, checkpoint, 'cpu')
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    with options_explained(cfg):
        model = MODELS.build(cfg.model).eval()
    load_weights(model, checkpoint)
    data = DATASETS.get(cfg.test_dataloader.dataset.type)
    model.dataset_meta = checkpoint.dataset_meta or dict(getattr(data, 'METAINFO', {}))
    return model


def usable_device(device: str | None) -> str:
    """Return the device, by default a GPU where there is one.

    Raises:
        UserError: if there is no such device.
    """
    if device is None:
        has_gpu = torch.cuda.is_available()
        device = f'cuda:{torch.cuda.current_device()}' if has_gpu else 'cpu'
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f'cannot be used: {str(error).splitlines()[0]}. Leave it out for a GPU '
            "where there is one, or use 'cpu'",
            device=device,
        ) from error
    return device


def dataset_meta(model: nn.Module) -> dict[str, Any]:
    """Metadata of the data set that a model was trained on: classes, palette ..."""
    return cast(dict[str, Any], model.dataset_meta)


def annotation_ids(meta: dict) -> np.ndarray:
    """Return the id of each class in the annotations, (num_classes,) uint8.

    ADE20K's annotations count from 1; a data set of some of its classes keeps its ids;
    of united classes the first one's id stands for all.
    """
    ids = np.arange(len(meta['classes']), dtype=np.uint8)
    for old, new in sorted((meta.get('label_map') or {}).items(), reverse=True):
        if new != 255:
            ids[new] = old
    return ids + bool(meta.get('reduce_zero_label'))


def load_weights(model: nn.Module, source: Checkpoint | str | Path) -> None:
    """Load a checkpoint and refuse one that does not fit exactly.

    Takes the authors' released classifiers too.

    Raises:
        UserError: names the file and the first keys that do not fit.
    """
    checkpoint = open_checkpoint(source)
    weights, faults = all_weights(model, checkpoint)
    if faults:
        merge = ''
        if any(map(is_lora, weights.keys() - model.state_dict().keys())):
            merge = ', or merge its adapters (convert_checkpoint with merge_lora=True)'
        shown = '\n  '.join(faults[:5])
        raise UserError(
            f'{checkpoint.source} is not a checkpoint of this model, {len(faults)} of '
            f'{len(model.state_dict())} keys do not fit:\n  {shown}\nUse the config it '
            f'was trained with{merge}; mmengine keeps a copy of it in the work dir'
        )
    model.load_state_dict(weights)


def get_model(
    name: str,
    pretrained: bool | Checkpoint | str | Path = False,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build the model of a config of this package.

    Args:
        name: see :func:`get_config`.
        pretrained: False: random weights, nothing is downloaded. True: the authors'
            released classifier of this config where there is one, else the weights
            that its training starts from. Or path or URL of a checkpoint.
        device: such as 'cuda:0'.
        cfg_options: see :func:`get_config`.

    Returns:
        The model in eval mode with its config as ``cfg``, and with ``dataset_meta`` if
        the checkpoint has class names: ``mmseg.apis.inference_model`` takes it.

    Raises:
        MissingFileError: if there is no such checkpoint.
        ConnectionError: if a URL cannot be reached.
        UserError: for an unknown name, a checkpoint of another model, or
            ``pretrained=True`` where the config starts from no weights.
    """
    cfg = get_config(name, cfg_options)
    source = _released(Path(cfg.filename)) if pretrained is True else pretrained or None
    parts = (cfg.model, cfg.model.backbone)
    if pretrained is True and source is None:
        if not any(part.get('init_cfg') for part in parts):
            raise UserError(
                f'pretrained=True, but {name} starts from no weights, and none were '
                'released: use pretrained=False, or path or URL of a checkpoint'
            )
    else:
        for part in parts:
            part.init_cfg = None
    # Before the model is built, which may take a while.
    checkpoint = None if source is None else open_checkpoint(source)
    init_default_scope(cfg.default_scope)  # mmseg's inference needs it afterwards too
    with options_explained(cfg):
        model = MODELS.build(cfg.model)
        with _no_list_of_parameters():
            model.init_weights()
    if checkpoint is not None:
        load_weights(model, checkpoint)
        if checkpoint.dataset_meta:
            model.dataset_meta = checkpoint.dataset_meta
    model.cfg = cfg
    return model.to(usable_device(device)).eval()


def _released(path: Path) -> str | None:
    """Look up ``Weights`` of a config in the metafile beside it."""
    wanted = Path('configs', path.relative_to(config_folder())).as_posix()
    metafile = path.with_name('metafile.yml')
    for model in load(metafile)['Models'] if metafile.is_file() else ():
        if model['Config'] == wanted:
            return model.get('Weights')
    return None


@contextmanager
def _no_list_of_parameters() -> Iterator[None]:
    """Drop mmengine's two lines on each parameter from the log."""

    def keep(record: LogRecord) -> bool:
        return record.module != 'base_module'

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
