"""Compare float32, half precision and 8 bits: score, time and memory."""

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta
from illama_seg.apis.quantize import ConfigImages, load_with_kind
from illama_seg.checkpoints import write_weights
from illama_seg.errors import UserError
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.machine.precision import choose_precision
from illama_seg.quantization import in_integers, wrong_products
from illama_seg.studies.benchmark import training_shape
from illama_seg.studies.common import (
    check_at_least,
    image_channels,
    results_path,
    write_results,
)
from illama_seg.studies.subjects import source_name
from illama_seg.studies.tables import Section, Table

WARM_UP = 2  # passes
MIB = 2**20
# Operators of torch that are matrix products and convolutions.
PRODUCTS = {
    'mm', 'addmm', 'bmm', 'baddbmm', '_int_mm', 'qlinear_pointwise', 'mkldnn_linear',
    'mkldnn_convolution', '_slow_conv2d_forward',
}  # fmt: skip
NOTES = dict(
    seconds='median time of a pass from the normalised images to the logits',
    times_faster='median over rounds; each round times every row once, in turn',
    bytes='size of the weights as .safetensors; 8-bit weights with their step sizes',
    in_products='share of the time in matrix products and convolutions, one pass',
)
SECTION = Section(
    title='8 bits',
    files='quantiz*.json',
    about='Medians over passes; in products: share of the time in matrix products '
    'and convolutions.',
    command='python tools/quantize.py eval {config} {checkpoint}',
)
COLUMNS = {
    'weights': '{name}',
    'precision': '{precision}',
    'ms': '{ms:.1f}',
    'times faster': '{times_faster:.2f}',
    'in products': '{percent:.0f} %',
    'MiB': '{mib:.2f}',
}
SCORES = {'top1': 'top-1, %', 'mIoU': 'mIoU, %', 'aAcc': 'pixel accuracy, %'}


def compare_precisions(
    config: str | Path,
    sources: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    images: int | None = None,
    batch_size: int | None = None,
    repeat: int = 20,
    cfg_options: dict | None = None,
) -> tuple[dict, str]:
    """Compare speed, size and accuracy of float32, bfloat16 and 8 bits on a CPU.

    bfloat16 is compared only where it is faster than float32. See
    :mod:`illama_seg.studies` for the other parameters, the result and errors.

    Args:
        sources: checkpoints in float, exported ones, and those of quantisation-aware
            trainings; speed is relative to the first.
        out: JSON file; by default ``quantization.json`` in the config's work dir.
        images: number of test images, drawn once; by default all. 0 measures speed
            only.
        batch_size: images or windows of the timed pass; by default the config's for a
            classification, 1 for a segmentation.
        repeat: number of timed rounds.
    """
    check_at_least(1, repeat=repeat, batch_size=batch_size)
    check_at_least(0, images=images)
    cfg = load_config(config, cfg_options)
    half = choose_precision('cpu')
    if half.name == 'float16':
        raise UserError(f'{half.reason}: 8 bits are compared with bfloat16 on a CPU')
    path = results_path(out, cfg, 'quantization.json')
    pays = half.name == 'bfloat16'
    rows = [row for source in sources for row in _rows(cfg, source, pays)]
    _time(rows, _batch(cfg, rows[0].model, batch_size), repeat)
    if images != 0:
        for row in rows:
            row.result.update(_score(cfg, row, images))
    results, wrong = [row.result for row in rows], wrong_products()
    integers = f'in float64: by instructions for integers {wrong}' if wrong else 'exact'
    table = _table(results, f'8 bits {integers}' if wrong else '')
    numbers = write_results(
        path,
        [table],
        config=str(config),
        rows=results,
        threads=torch.get_num_threads(),
        repeat=repeat,
        machine=platform.machine(),
        capability=torch.backends.cpu.get_cpu_capability(),
        half_precision=half.reason,
        integers=integers,
        notes=NOTES,
    )
    return numbers, str(table)


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


def _rows(cfg: Config, source: str | Path, pays: bool) -> Iterator[_Row]:
    model, kind = load_with_kind(cfg.copy(), source)
    if kind == 'trained':
        model = in_integers(model)
    for half in dict.fromkeys((False, pays)):
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


def _bytes(model: nn.Module, half: bool) -> int:
    weights = model.state_dict()
    if half:
        weights = {key: value.bfloat16() for key, value in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.safetensors'
        write_weights(weights, path)
        return path.stat().st_size


def _batch(cfg: Config, model: nn.Module, batch_size: int | None) -> Tensor:
    """Draw random images (N, 3, H, W); their values do not change the time."""
    segments = hasattr(model, 'decode_head')
    count = batch_size or (1 if segments else cfg.test_dataloader.batch_size)
    generator = torch.Generator().manual_seed(0)
    size = (count, image_channels(model), *training_shape(model))
    return torch.randn(*size, generator=generator)


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
    # Without this the profiler warns that it found no GPU.
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        row.run(images)
    totals = {event.key: event.self_cpu_time_total for event in measured.key_averages()}
    total = sum(totals.values())
    largest = sorted(totals, key=lambda key: -totals[key])[:10]
    products = sum(t for k, t in totals.items() if k.split('::')[-1] in PRODUCTS)
    return dict(
        in_products=products / total,
        operators={key: totals[key] / total for key in largest},
    )


def _table(rows: list[dict], note: str) -> Table:
    scores = {
        title: f'{{{key}:.2f}}' for key, title in SCORES.items() if key in rows[0]
    }
    cells = [
        dict(
            row,
            ms=1000 * row['seconds'],
            percent=100 * row['in_products'],
            mib=row['bytes'] / MIB,
        )
        for row in rows
    ]
    images = f'{rows[0]["images"]} images; ' if scores else ''
    notes = (
        f'{images}batch of {"x".join(map(str, rows[0]["shape"]))}; times faster than '
        'the first row',
        f'on {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, '
        f'{torch.get_num_threads()} threads, torch {torch.__version__}',
        note,
    )
    return Table.of(cells, COLUMNS | scores, note='\n'.join(filter(None, notes)))


def _score(cfg: Config, row: _Row, count: int | None) -> dict:
    """Compute top-1 accuracy, or mIoU and pixel accuracy, all in percent."""
    data = ConfigImages(cfg, row.model, 'test', count, seed=0)
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
