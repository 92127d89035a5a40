"""Models in 8 bits: calibrate, export, and compare with float32 and bfloat16."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.apis import init_model
from prettytable import PrettyTable
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from illama_seg.apis.benchmark import training_shape
from illama_seg.apis.classifiers import source_name
from illama_seg.apis.mistakes import check_seed, check_writable, options_explained
from illama_seg.apis.prediction import dataset_meta, load_weights, predict
from illama_seg.apis.report import LabelledImages
from illama_seg.apis.running import load_config
from illama_seg.checkpoints import (
    fetch_checkpoint,
    find_weights,
    read_checkpoint,
    weights_path,
    write_weights,
)
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.machine.precision import choose_precision
from illama_seg.quantization import (
    calibrate,
    holds_integers,
    in_integers,
    wrong_products,
)

FLOAT, QUANTIZED = 'ILLaMA', 'QuantizedILLaMA'
WARM_UP = 2  # passes
MIB = 2**20
# Operators of torch that are matrix products and convolutions.
PRODUCTS = {
    'mm', 'addmm', 'bmm', 'baddbmm', '_int_mm', 'qlinear_pointwise', 'mkldnn_linear',
    'mkldnn_convolution', '_slow_conv2d_forward',
}  # fmt: skip
NOTES = dict(
    seconds='median of a pass from the normalised images to the logits',
    times_faster='median over rounds; each round times every row once, in turn',
    bytes='of the weights as .safetensors; those in 8 bits with their step sizes',
    in_products='share of the time in matrix products and convolutions, one pass',
)


def quantize_after_training(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
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
        ValueError: if the weights do not fit, are in 8 bits already, or an option is
            out of its range.
    """
    weights_path(out)
    if calib < 1:
        raise ValueError(f'--calib {calib}: expected at least 1 image')
    check_seed(seed)
    cfg = load_config(config, cfg_options)
    model, kind = _load(cfg.copy(), checkpoint)
    if kind != 'float':
        raise ValueError(
            f'{checkpoint} has 8-bit weights already ({kind}): expected a checkpoint '
            'in float'
        )
    simulated = _build(cfg.copy(), QUANTIZED)
    simulated.load_state_dict(model.state_dict(), strict=False)
    _note_classes(simulated, model)
    data = _Images(cfg, simulated, 'train', calib, seed)

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
        ValueError: if the checkpoint is not of such a training.
    """
    weights_path(out)
    model, kind = _load(load_config(config, cfg_options), checkpoint)
    if kind != 'trained':
        raise ValueError(
            f'{checkpoint} is in {kind}: expected a checkpoint of a quantisation-aware '
            'training, such as of configs/quantization/illama_tiny_w8a8_in1k.py'
        )
    _export(model, out)


def compare_precisions(
    config: str | Path,
    sources: Sequence[str | Path],
    out: str | Path | None = None,
    images: int | None = None,
    batch_size: int | None = None,
    repeat: int = 20,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Speed, size and accuracy on a CPU: float32, bfloat16 and 8 bits side by side.

    bfloat16 only where it is faster than float32 here.

    Args:
        config: config of the model, or its name.
        sources: checkpoints in float, exported ones, and those of quantisation-aware
            trainings; the first is what the speed is compared with.
        out: JSON file; by default ``quantization.json`` in the config's work dir.
        images: of the test data, drawn once; by default all. 0 measures speed only.
        batch_size: images, or windows, of the pass that is timed; by default the
            config's for a classification, 1 for a segmentation.
        repeat: rounds timed.
        cfg_options: overrides of the config.

    Returns:
        What is in the file, and a readable table.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if an option is out of its range or weights do not fit.
    """
    if repeat < 1 or (batch_size is not None and batch_size < 1) or (images or 0) < 0:
        raise ValueError(
            f'--repeat {repeat} --batch-size {batch_size} --images {images}: expected '
            'rounds and a batch of at least 1, and no negative number of images'
        )
    cfg = load_config(config, cfg_options)
    path = Path(out or Path(cfg.work_dir) / 'quantization.json')
    check_writable(path.parent, '--out')
    rows = [row for source in sources for row in _rows(cfg, source)]
    _time(rows, _batch(cfg, rows[0].model, batch_size), repeat)
    if images != 0:
        for row in rows:
            row.result.update(_score(cfg, row, images))
    results = [row.result for row in rows]
    numbers = dict(
        config=str(config),
        rows=results,
        threads=torch.get_num_threads(),
        repeat=repeat,
        torch=torch.__version__,
        machine=platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability(),
        half_precision=choose_precision('cpu').reason,
        integers=_integers(),
        notes=NOTES,
    )
    path.write_text(json.dumps(numbers, indent=1))
    table = _table(results)
    if wrong_products():
        table += f'\n8 bits {numbers["integers"]}'
    return numbers, table


@dataclass
class _Row:
    model: nn.Module
    half: bool
    result: dict

    @contextmanager
    def precision(self) -> Iterator[None]:
        amp = torch.autocast('cpu', torch.bfloat16, enabled=self.half)
        with torch.inference_mode(), amp:
            yield

    def run(self, images: Tensor) -> None:
        with self.precision():
            self.model(images)


def _rows(cfg: Config, source: str | Path) -> Iterator[_Row]:
    model, kind = _load(cfg.copy(), source)
    if kind == 'trained':
        model = in_integers(model)
    # Half precision only where a user would take it.
    chosen = choose_precision('cpu').name
    for half in dict.fromkeys((False, chosen == 'bfloat16')):
        name = 'bf16' if half else 'fp32'
        if kind != 'float':
            name = 'W8A8, rest bf16' if half else 'W8A8'
        result = dict(
            source=str(source),
            name=source_name(source),
            precision=name,
            bytes=_bytes(model, half and kind == 'float'),
        )
        yield _Row(model, half, result)


def _integers() -> str:
    wrong = wrong_products()
    return f'in float64: by instructions for integers {wrong}' if wrong else 'exact'


def _bytes(model: nn.Module, half: bool) -> int:
    weights = model.state_dict()
    if half:
        weights = {key: value.bfloat16() for key, value in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.safetensors'
        write_weights(weights, path)
        return path.stat().st_size


# Speed


def _batch(cfg: Config, model: nn.Module, batch_size: int | None) -> Tensor:
    """Random images as the preprocessor leaves them: the values take no time."""
    segments = hasattr(model, 'decode_head')
    height, width = training_shape(model)
    count = batch_size or (1 if segments else cfg.test_dataloader.batch_size)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator)


def _time(rows: list[_Row], images: Tensor, repeat: int) -> None:
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in tqdm(range(WARM_UP + repeat), desc='timing', unit='round'):
        for row, times in zip(rows, seconds, strict=True):
            start = time.perf_counter()
            row.run(images)
            times.append(time.perf_counter() - start)
    first = seconds[0][WARM_UP:]
    for row, times in zip(rows, seconds, strict=True):
        times = times[WARM_UP:]
        ratios = [a / b for a, b in zip(first, times, strict=True)]
        row.result.update(
            shape=list(images.shape),
            seconds=statistics.median(times),
            times_faster=statistics.median(ratios),
            all_seconds=times,
            **_shares(row, images),
        )


def _shares(row: _Row, images: Tensor) -> dict:
    # Else the profiler tells that it found no GPU.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        row.run(images)
    totals = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    whole = sum(totals.values())
    largest = sorted(totals, key=lambda key: -totals[key])[:10]
    products = sum(t for k, t in totals.items() if k.split('::')[-1] in PRODUCTS)
    return dict(
        in_products=products / whole,
        operators={key: totals[key] / whole for key in largest},
    )


def _table(rows: list[dict]) -> str:
    scores = [name for name in ('top1', 'mIoU', 'aAcc') if name in rows[0]]
    names = ['ms', 'times faster', 'in products', 'MiB', *scores]
    table = PrettyTable(['weights', 'precision', *names], align='r')
    table.align['weights'] = table.align['precision'] = 'l'
    for row in rows:
        figures = [
            f'{1000 * row["seconds"]:.1f}',
            f'{row["times_faster"]:.2f}',
            f'{100 * row["in_products"]:.0f} %',
            f'{row["bytes"] / MIB:.2f}',
            *(f'{row[name]:.2f}' for name in scores),
        ]
        table.add_row([row['name'], row['precision'], *figures])
    batch = 'x'.join(map(str, rows[0]['shape']))
    images = f'{rows[0]["images"]} images; ' if scores else ''
    return f'{table}\n{images}a pass takes {batch}; times faster than the first row'


# Accuracy, and images to calibrate with


class _Images:
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


def _score(cfg: Config, row: _Row, count: int | None) -> dict:
    """Top-1 accuracy, or mIoU and pixel accuracy, all in percent."""
    data = _Images(cfg, row.model, 'test', count, seed=0)
    with row.precision():
        pairs = data.pairs(row.model, row.result['precision'])
        if not data.segments:
            hits = sum(int((guess == truth).sum()) for guess, truth in pairs)
            return dict(images=len(data), top1=100 * hits / len(data))
        matrix = ConfusionMatrix(dataset_meta(row.model)['classes'])
        for guess, truth in pairs:
            matrix.update(truth, guess)
    summary = matrix.summary()
    return dict(images=len(data), mIoU=summary['mIoU'], aAcc=summary['aAcc'])


# Files


def _load(cfg: Config, source: str | Path) -> tuple[nn.Module, str]:
    """Model of a checkpoint, and 'float', 'trained' or 'integers' for what it holds."""
    state = read_checkpoint(fetch_checkpoint(source), mmap=True)
    weights, _ = find_weights(state, source)
    kind = 'float'
    if holds_integers(weights):
        kind = 'integers'
    elif any(key.endswith('.weight_step') for key in weights):
        kind = 'trained'
    backbone = FLOAT if kind == 'float' else QUANTIZED
    model = _build(cfg, backbone, integers=kind == 'integers')
    load_weights(model, state, source)
    for name, value in model.state_dict().items():  # an integer would hide them
        if not value.isfinite().all():
            raise ValueError(
                f'{source}: {name} has values that are not finite: expected a '
                'checkpoint of a training that did not diverge'
            )
    known = (state.get('meta') or {}).get('dataset_meta')
    cast(Any, model).dataset_meta = dict(known or _data_meta(cfg))
    return model, kind


def _build(cfg: Config, backbone: str, integers: bool = False) -> nn.Module:
    """The config's model in eval mode on the CPU, with one of our backbones."""
    found = cfg.model.backbone
    if found.get('type') not in (FLOAT, QUANTIZED):
        raise ValueError(
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
