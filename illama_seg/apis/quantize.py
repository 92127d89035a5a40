"""Models in 8 bits: calibrate, export, and compare with float32 and bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.apis import init_model
from torch import nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta, load_weights
from illama_seg.apis.prediction import predict
from illama_seg.apis.user_errors import check_seed, options_explained
from illama_seg.checkpoints import (
    open_checkpoint,
    weights_path,
    write_weights,
)
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.quantization import calibrate, holds_integers, in_integers

FLOAT, QUANTIZED = 'ILLaMA', 'QuantizedILLaMA'


def quantize_after_training(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    *,
    calib: int = 256,
    seed: int = 0,
    cfg_options: dict | None = None,
) -> tuple[int, int]:
    """Calibrate a float model on training images, and export it in 8 bits.

    Args:
        config: config of the model, or its name.
        checkpoint: its weights in float.
        out: file to write, ``.pth`` or ``.safetensors``.
        calib: images of the training data, without augmentation.
        seed: of the draw of these.
        cfg_options: overrides of the config.

    Returns:
        Number of step sizes found, and of images they were found with.

    Raises:
        FileNotFoundError: if a file is missing.
        UserError: if the weights do not fit, are in 8 bits already, or an option is
            out of its range.
    """
    weights_path(out)
    if calib < 1:
        raise UserError('expected at least 1 image', calib=calib)
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    model, kind = load_with_kind(cfg.copy(), checkpoint)
    if kind != 'float':
        raise UserError(
            f'{checkpoint} has 8-bit weights already ({kind}): expected a checkpoint '
            'in float'
        )
    simulated = _build(cfg.copy(), QUANTIZED)
    simulated.load_state_dict(model.state_dict(), strict=False)
    _note_classes(simulated, model)
    data = ConfigImages(cfg, simulated, 'train', calib, seed)

    def run() -> None:
        for _ in data.pairs(simulated, 'calibrating'):
            pass

    with torch.inference_mode():
        found = calibrate(simulated, run)
    _export(simulated, out)
    return found, len(data)


def export_quantized(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    cfg_options: dict | None = None,
) -> None:
    """Write what a quantisation-aware training ended with as integers.

    Args:
        config: config of the model, or its name.
        checkpoint: of ``tools/train.py`` with a backbone of type QuantizedILLaMA.
        out: file to write, ``.pth`` or ``.safetensors``.
        cfg_options: overrides of the config.

    Raises:
        FileNotFoundError: if a file is missing.
        UserError: if the checkpoint is not of such a training.
    """
    weights_path(out)
    model, kind = load_with_kind(load_config(config, cfg_options), checkpoint)
    if kind != 'trained':
        raise UserError(
            f'{checkpoint} is in {kind}: expected a checkpoint of a quantisation-aware '
            'training, such as of configs/quantization/illama_tiny_w8a8_in1k.py'
        )
    _export(model, out)


def load_with_kind(cfg: Config, source: str | Path) -> tuple[nn.Module, str]:
    """Model of a checkpoint, and 'float', 'trained' or 'integers' for what it holds."""
    checkpoint = open_checkpoint(source)
    weights = checkpoint.weights
    kind = 'float'
    if holds_integers(weights):
        kind = 'integers'
    elif any(key.endswith('.weight_step') for key in weights):
        kind = 'trained'
    backbone = FLOAT if kind == 'float' else QUANTIZED
    model = _build(cfg, backbone, integers=kind == 'integers')
    load_weights(model, checkpoint)
    for name, value in model.state_dict().items():  # an integer would hide them
        if not value.isfinite().all():
            raise UserError(
                f'{source}: {name} has values that are not finite: expected a '
                'checkpoint of a training that did not diverge'
            )
    cast(Any, model).dataset_meta = checkpoint.dataset_meta or _data_meta(cfg)
    return model, kind


def _build(cfg: Config, backbone: str, integers: bool = False) -> nn.Module:
    """The config's model in eval mode on the CPU, with one of our backbones."""
    found = cfg.model.backbone
    if found.get('type') not in (FLOAT, QUANTIZED):
        raise UserError(
            f'{cfg.filename} has model.backbone.type={found.get("type")!r}: expected '
            f'{FLOAT!r} or {QUANTIZED!r}; no other is quantised here'
        )
    found.type = backbone
    found.pop('integers', None)
    if integers:
        found.integers = True
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.model.init_cfg = found.init_cfg = None
    with options_explained(cfg):
        if 'decode_head' in cfg.model:
            return init_model(cfg, None, 'cpu')
        return MODELS.build(cfg.model).eval()


def _data_meta(cfg: Config) -> dict:
    data = DATASETS.get(cfg.test_dataloader.dataset.type)
    return dict(getattr(data, 'METAINFO', {}))


def _note_classes(model: nn.Module, other: nn.Module) -> None:
    cast(Any, model).dataset_meta = dataset_meta(other)


def _export(model: nn.Module, out: str | Path) -> None:
    whole: Any = in_integers(model)
    # As plain data: a checkpoint runs no code when it is read.
    known = {key: dataset_meta(model).get(key) for key in ('classes', 'palette')}
    meta = dict(dataset_meta={k: v for k, v in known.items() if v is not None})
    write_weights(whole.state_dict(), out, whole.backbone.grid_size, meta)


class ConfigImages:
    """Some images of a config's data, run as in a test.

    Args:
        cfg: config.
        model: segmentor or classifier.
        split: 'train' or 'test'.
        count: images, or None for all.
        seed: of the draw.
    """

    def __init__(
        self, cfg: Config, model: nn.Module, split: str, count: int | None, seed: int
    ) -> None:
        self.segments = hasattr(model, 'decode_head')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        self.data: Any
        with options_explained(cfg):
            if self.segments:
                self.data = LabelledImages(cfg, split)
            else:
                settings = cfg[f'{split}_dataloader'].dataset
                steps = cfg.test_dataloader.dataset.pipeline
                self.data = DATASETS.build(dict(settings, pipeline=steps))
        size = cfg.test_dataloader.batch_size
        self.batch_size = 1 if self.segments else size
        order = np.random.default_rng(seed).permutation(len(self.data))
        self.indices = sorted(order[:count].tolist())

    def __len__(self) -> int:
        return len(self.indices)

    def pairs(self, model: nn.Module, title: str) -> Iterator[tuple[Any, Any]]:
        """Class numbers predicted and the true ones, of a batch or of an image."""
        parts = cast(Any, model)
        steps = range(0, len(self.indices), self.batch_size)
        for start in tqdm(steps, desc=title, unit='batch'):
            chosen = self.indices[start : start + self.batch_size]
            samples = [self.data[index] for index in chosen]
            if self.segments:
                ((image, label, _),) = samples
                yield predict(model, image), label
                continue
            images = torch.stack([sample['inputs'] for sample in samples])
            inputs = parts.data_preprocessor(dict(inputs=images))['inputs']
            truth = [int(sample['data_samples'].gt_label) for sample in samples]
            yield parts(inputs).argmax(1), torch.tensor(truth)
