"""Models in simulated 8 bits: find their step sizes, run them on data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta, load_model
from illama_seg.apis.prediction import predict
from illama_seg.apis.user_errors import check_seed, options_explained
from illama_seg.checkpoints import weights_path, write_weights
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.quantization import QuantizedILLaMA, calibrate, find_quantized

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
    """Calibrate a float model on training images: find the step sizes of its blocks.

    The result is a checkpoint of a model with ``backbone.type='QuantizedILLaMA'``, as a
    quantisation-aware training writes it; :func:`export_model` makes a file of it.

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
            f'{checkpoint} has step sizes already: expected a checkpoint in float'
        )
    other = cfg.copy()
    other.model.backbone.type = QUANTIZED
    simulated = MODELS.build(other.model).eval()
    cast(Any, simulated).cfg = getattr(model, 'cfg', cfg)
    simulated.load_state_dict(model.state_dict(), strict=False)
    cast(Any, simulated).dataset_meta = dataset_meta(model)
    data = ConfigImages(cfg, simulated, 'train', calib, seed)

    def run() -> None:
        for _ in data.pairs(simulated, 'calibrating'):
            pass

    with torch.inference_mode():
        found = calibrate(simulated, run)
    known = {key: dataset_meta(model).get(key) for key in ('classes', 'palette')}
    # As plain data: a checkpoint runs no code when it is read.
    meta = dict(dataset_meta={k: v for k, v in known.items() if v is not None})
    write_weights(
        simulated.state_dict(), out, find_quantized(simulated).grid_size, meta
    )
    return found, len(data)


def load_with_kind(cfg: Config, source: str | Path) -> tuple[nn.Module, str]:
    """Return the model of a checkpoint, and its kind: 'float' or 'simulated'.

    Raises:
        UserError: if the config has another backbone, or the weights are not finite.
    """
    _check_backbone(cfg)
    model = load_model(cfg, source)
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            raise UserError(
                f'{source}: {name} has values that are not finite: expected a '
                'checkpoint of a training that did not diverge'
            )
    quantized = isinstance(cast(Any, model).backbone, QuantizedILLaMA)
    return model, 'simulated' if quantized else 'float'


def _check_backbone(cfg: Config) -> None:
    kind = cfg.model.backbone.get('type')
    if kind not in (FLOAT, QUANTIZED):
        raise UserError(
            f'{cfg.filename} has model.backbone.type={kind!r}: expected {FLOAT!r} or '
            f'{QUANTIZED!r}; no other is quantised here'
        )


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
