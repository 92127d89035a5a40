"""Configs and models by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from illama_seg.apis.mistakes import options_explained
from illama_seg.apis.names import config_folder, find_config, nearest_names
from illama_seg.apis.prediction import load_weights, usable_device
from illama_seg.apis.running import load_config
from illama_seg.checkpoints import fetch_checkpoint, read_checkpoint


def get_config(name: str, cfg_options: dict | None = None) -> Config:
    """Config of this package by name.

    Args:
        name: with or without ``.py`` and folder; see :func:`list_models`.
        cfg_options: overrides, as of ``--cfg-options``: dotted key -> value.

    Raises:
        ValueError: if there is no such config (names the nearest), or an override does
            not fit it.
    """
    path = find_config(name)
    if path is None:
        raise ValueError(
            f'no config named {name!r}; the nearest: {", ".join(nearest_names(name))}'
        )
    return load_config(path, cfg_options)


def get_model(
    name: str,
    pretrained: bool | str | Path = False,
    device: str = 'cpu',
    cfg_options: dict | None = None,
) -> nn.Module:
    """Build the model of a config of this package.

    Args:
        name: see :func:`get_config`.
        pretrained: False: random weights, nothing is downloaded. True: the authors'
            released classifier of this very recipe where there is one, else what the
            config's training starts from. Or path or URL of a checkpoint of this model.
        device: such as 'cuda:0'.
        cfg_options: see :func:`get_config`.

    Returns:
        The model in eval mode with its config as ``cfg``; if the checkpoint has class
        names, with ``dataset_meta``, so that ``mmseg.apis.inference_model`` takes it.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ConnectionError: if a URL cannot be reached.
        ValueError: for an unknown name, a checkpoint of another model, or
            ``pretrained=True`` where the config starts from no weights.
    """
    cfg = get_config(name, cfg_options)
    source = _released(Path(cfg.filename)) if pretrained is True else pretrained or None
    parts = (cfg.model, cfg.model.backbone)
    if pretrained is True and source is None:
        if not any(part.get('init_cfg') for part in parts):
            raise ValueError(
                f'pretrained=True, but {name} starts from no weights, and none were '
                'released: use pretrained=False, or path or URL of a checkpoint'
            )
    else:
        for part in parts:
            part.init_cfg = None
    # Before the model is built, which may take a while.
    state = None if source is None else read_checkpoint(fetch_checkpoint(source))
    init_default_scope(cfg.default_scope)  # mmseg's inference needs it afterwards too
    with options_explained(cfg):
        model = MODELS.build(cfg.model)
        with _no_list_of_parameters():
            model.init_weights()
    if state is not None:
        load_weights(model, state, str(source))
        meta = state.get('meta')
        if isinstance(meta, dict) and meta.get('dataset_meta'):
            model.dataset_meta = dict(meta['dataset_meta'])
    model.cfg = cfg
    return model.to(usable_device(device)).eval()


def _released(path: Path) -> str | None:
    """URL of a config's ``Weights``, if the file of models beside it names any."""
    wanted = Path('configs', path.relative_to(config_folder())).as_posix()
    metafile = path.with_name('metafile.yml')
    for model in load(metafile)['Models'] if metafile.is_file() else ():
        if model['Config'] == wanted:
            return model.get('Weights')
    return None


@contextmanager
def _no_list_of_parameters() -> Iterator[None]:
    """Without mmengine's two lines on each parameter; what was loaded is still said."""

    def keep(record: LogRecord) -> bool:
        return record.module != 'base_module'

    logger = MMLogger.get_current_instance()
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
