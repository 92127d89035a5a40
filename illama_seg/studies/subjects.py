"""Classifiers to measure: checkpoints of a config, and timm's models."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, MODELS, init_default_scope
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from tqdm import tqdm

from illama_seg.apis.models import load_weights, usable_device
from illama_seg.apis.user_errors import options_explained
from illama_seg.checkpoints import Checkpoint, open_checkpoint
from illama_seg.errors import UserError
from illama_seg.pretrain import LoadRGBImage

TIMM, RANDOM = 'timm:', 'random'


@dataclass(frozen=True)
class Classifier:
    """A classifier with its own preprocessing.

    Attributes:
        name: name in tables and drawings.
        model: loaded batch -> logits (B, num_classes).
        load: dict of ``img_path``, or ``img`` (H, W) or (H, W, 3) uint8 -> (3, h, w).
        num_classes: number of outputs.
        classes: names of the classes, if the checkpoint or the data set has them.
        device: device of the model.
        module: module with the weights.
    """

    name: str
    model: Callable[[Tensor], Tensor]
    load: Callable[[dict], Tensor]
    num_classes: int
    classes: tuple[str, ...] | None
    device: str
    module: nn.Module | None = None

    @torch.inference_mode()
    def logits(self, images: list[Tensor]) -> Tensor:
        """Compute logits of loaded images: (B, num_classes) float32 on the CPU."""
        return self.model(torch.stack(images).to(self.device)).float().cpu()

    def batches(self, infos: Sequence[dict], batch_size: int) -> Iterator[Tensor]:
        """Load images and compute their logits (B, num_classes); shows the progress."""
        for start in tqdm(range(0, len(infos), batch_size), self.name, unit='batch'):
            batch = infos[start : start + batch_size]
            yield self.logits([self.load(info) for info in batch])


def build_classifier(
    cfg: Config, source: str | Path, device: str | None = None
) -> Classifier:
    """Build a classifier and load its weights, all of them, without running any code.

    Args:
        cfg: config of a classification; it sets the number of classes of timm's models.
        source: file or URL of a checkpoint of this config, 'random' for the initial
            weights of its training, ``timm:NAME`` with the weights that timm downloads,
            ``timm:NAME=FILE`` with those of a file, or ``timm:NAME=random``.
            Random weights are drawn from the config's ``randomness.seed``, or from 0.
        device: such as 'cpu' or 'cuda:1'; by default a GPU where there is one.

    Raises:
        MissingFileError: if a file is missing.
        ConnectionError: if weights cannot be downloaded.
        UserError: if the config has no classifier, the model is unknown, or the
            weights do not fit it.
    """
    if 'head' not in cfg.model:
        raise UserError(
            f'{cfg.filename} has no model.head: expected the config of a '
            'classification, such as configs/pretrain/illama_base_in1k.py'
        )
    device, source = usable_device(device), str(source)
    # Random weights are the same every time; the caller's generator is not changed.
    with torch.random.fork_rng(devices=()):
        torch.manual_seed((cfg.get('randomness') or {}).get('seed') or 0)
        make = _from_timm if source.startswith(TIMM) else _from_config
        model, load, classes = make(source, cfg)
    model.to(device).eval()
    drawn = f'{Path(cfg.filename).stem} ({RANDOM} weights)'
    data = DATASETS.get(cfg.test_dataloader.dataset.type)
    return Classifier(
        name=drawn if source == RANDOM else source_name(source),
        model=model if make is _from_timm else partial(_preprocessed, model),
        load=load,
        num_classes=cfg.model.head.num_classes,
        classes=classes or getattr(data, 'METAINFO', {}).get('classes'),
        device=device,
        module=model,
    )


# Model, function that loads an image for it, and names of the classes, if it has them.
_Parts = tuple[nn.Module, Callable[[dict], Tensor], tuple[str, ...]]


def _from_config(source: str, cfg: Config) -> _Parts:
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    checkpoint: Checkpoint | None = None
    if source != RANDOM:
        checkpoint = open_checkpoint(source)
        cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    with options_explained(cfg):
        model = MODELS.build(cfg.model)
        load = partial(_by_pipeline, Compose(cfg.test_dataloader.dataset.pipeline))
    if checkpoint is None:
        model.init_weights()
        return model, load, ()
    load_weights(model, checkpoint)
    return model, load, tuple(checkpoint.dataset_meta.get('classes') or ())


def source_name(source: str | Path) -> str:
    """Return a short name of a checkpoint or of timm's model."""
    if str(source).startswith(TIMM):
        name, _, weights = str(source).removeprefix(TIMM).partition('=')
        return f'{name} ({RANDOM} weights)' if weights == RANDOM else name
    path = Path(source)
    return f'{path.parent.name}/{path.stem}' if path.parent.name else path.stem


def _from_timm(source: str, cfg: Config) -> _Parts:
    name, _, weights = source.removeprefix(TIMM).partition('=')
    num_classes = cfg.model.head.num_classes
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=4)
        raise UserError(
            f'timm has no model {name!r}; the nearest: {", ".join(near) or "none"}'
        )
    options: dict[str, Any] = dict(num_classes=num_classes)
    read: dict[str, Tensor] = {}
    if weights and weights != RANDOM:
        # Refuses an unsafe file; timm, which knows the keys of other files, loads it.
        checkpoint = open_checkpoint(weights)
        read = checkpoint.weights
        overlay = dict(
            file=str(checkpoint.path), num_classes=num_classes, custom_load=False
        )
        options.update(pretrained=True, pretrained_cfg_overlay=overlay)
    elif not weights:
        options = dict(pretrained=True)
    try:
        model: Any = timm.create_model(name, **options)
    except Exception as error:  # timm, its downloader and torch raise many kinds
        reason = str(error).splitlines()[0].rstrip('.')
        if weights:
            raise UserError(
                f'{weights} does not fit timm:{name} with {num_classes} classes: '
                f'{reason}'
            ) from error
        raise ConnectionError(
            f'no weights of timm:{name} to be had: {reason}. Without a network give '
            f'their file, timm:{name}=FILE; timm:{name}=random has random weights'
        ) from error
    head = read.get(f'{model.pretrained_cfg.get("classifier")}.weight')
    outputs = model.num_classes if head is None else len(head)
    if outputs != num_classes:
        raise UserError(
            f'{source} has {outputs} classes, the config {num_classes}: give a file of '
            f'weights for these, timm:{name}=FILE'
        )
    transform = create_transform(**resolve_model_data_config(model))
    return model, partial(_by_transform, transform), ()


def _preprocessed(model: nn.Module, images: Tensor) -> Tensor:
    parts: Any = model
    return parts(parts.data_preprocessor(dict(inputs=images))['inputs'])


def _by_pipeline(steps: Compose, info: dict) -> Tensor:
    return steps(info)['inputs']


def _by_transform(transform: Callable, info: dict) -> Tensor:
    return transform(LoadRGBImage()(info)['img'])
