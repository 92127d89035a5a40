"""Compare float32, half precision and exported files: score, time and size."""

import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from tqdm import tqdm

from illama_seg.apis.configs import load_config
from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.quantize import ConfigImages, load_with_kind
from illama_seg.checkpoints import write_weights
from illama_seg.deploy import ExportedModel, is_exported
from illama_seg.deploy.sidecar import weights_paths
from illama_seg.errors import UserError
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.machine.precision import choose_precision
from illama_seg.studies.common import (
    check_at_least,
    image_channels,
    results_path,
    training_shape,
    write_results,
)
from illama_seg.studies.subjects import source_name
from illama_seg.studies.tables import Section, Table

WARM_UP = 2  # passes
MIB = 2**20
NOTES = dict(
    seconds='median time of a pass from the normalised images to the logits',
    times_faster=(
        'median over rounds; each runs every row twice, in turn, and times the second'
    ),
    bytes='size of the weights as .safetensors, or of the exported file',
)
SECTION = Section(
    title='8 bits',
    files='quantiz*.json',
    about='Medians over passes.',
    command='python tools/quantize.py eval {config} {checkpoint}',
)
COLUMNS = {
    'weights': '{name}',
    'precision': '{precision}',
    'ms': '{ms:.1f}',
    'times faster': '{times_faster:.2f}',
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
    """Compare speed, size and accuracy of a model and its exported files on a CPU.

    bfloat16 is compared only where it is faster than float32. See
    :mod:`illama_seg.studies` for the other parameters, the result and errors.

    Args:
        sources: checkpoints in float, those with simulated 8 bits, and files of
            :func:`illama_seg.apis.export_model`; speed is relative to the first.
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
    _time(rows, _batch(cfg, rows, batch_size), repeat)
    if images != 0:
        for row in rows:
            row.result.update(_score(cfg, row, images))
    results = [row.result for row in rows]
    table = _table(results)
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
        notes=NOTES,
    )
    return numbers, str(table)


@dataclass
class _Row:
    """A model, or the file that was exported from one."""

    model: Any
    result: dict
    half: bool = False
    file: ExportedModel | None = None

    @contextmanager
    def precision(self) -> Iterator[None]:
        amp = torch.autocast('cpu', torch.bfloat16, enabled=self.half)
        with torch.inference_mode(), amp:
            yield

    def run(self, images: Tensor) -> None:
        if self.file is not None:
            self.file.logits(images.numpy())
            return
        with self.precision():
            self.model(images)


def _rows(cfg: Config, source: str | Path, pays: bool) -> Iterator[_Row]:
    name = source_name(source)
    if is_exported(source):
        file = ExportedModel(source)
        runtime = 'OpenVINO' if Path(source).suffix == '.xml' else 'ONNX Runtime'
        size = sum(path.stat().st_size for path in weights_paths(Path(source)))
        precision = f'{runtime}, {file.sidecar.precision}'
        result = dict(source=str(source), name=name, precision=precision, bytes=size)
        model = None
        if file.sidecar.task == 'segmentation':
            model = load_segmentor(cfg.copy(), source)
        yield _Row(model, result, file=file)
        return
    model, kind = load_with_kind(cfg.copy(), source)
    for half in dict.fromkeys((False, pays and kind == 'float')):
        precision = 'bf16' if half else 'fp32'
        result = dict(
            source=str(source),
            name=name,
            precision=precision if kind == 'float' else 'W8A8, simulated',
            bytes=_bytes(model, half),
        )
        yield _Row(model, result, half)


def _bytes(model: nn.Module, half: bool) -> int:
    weights = model.state_dict()
    if half:
        weights = {key: value.bfloat16() for key, value in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'weights.safetensors'
        write_weights(weights, path)
        return path.stat().st_size


def _batch(cfg: Config, rows: list[_Row], batch_size: int | None) -> Tensor:
    """Draw random images (N, 3, H, W); their values do not change the time."""
    sizes = {
        tuple(row.file.sidecar.size)
        for row in rows
        if row.file and row.file.sidecar.size
    }
    if len(sizes) > 1:
        found = ', '.join(f'{height}x{width}' for height, width in sorted(sizes))
        raise UserError(f'the exported files take several sizes, {found}: compare one')
    model = next((row.model for row in rows if row.file is None), None)
    if model is None:
        raise UserError('the first of the sources must be a checkpoint')
    size = next(iter(sizes), None) or training_shape(model)
    count = batch_size or (1 if sizes else cfg.test_dataloader.batch_size)
    if hasattr(model, 'decode_head') and not batch_size:
        count = 1
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, image_channels(model), *size, generator=generator)


def _time(rows: list[_Row], images: Tensor, repeat: int) -> None:
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in tqdm(range(WARM_UP + repeat), desc='timing', unit='round'):
        for row, times in zip(rows, seconds, strict=True):
            # Threads of the row before may wait for work, spinning, for a while.
            row.run(images)
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
        )


def _table(rows: list[dict]) -> Table:
    scores = {
        title: f'{{{key}:.2f}}' for key, title in SCORES.items() if key in rows[0]
    }
    cells = [
        dict(
            row,
            ms=1000 * row['seconds'],
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
    )
    return Table.of(cells, COLUMNS | scores, note='\n'.join(notes))


def _score(cfg: Config, row: _Row, count: int | None) -> dict:
    """Compute top-1 accuracy, or mIoU and pixel accuracy, all in percent."""
    if row.model is None:
        return _score_file(cfg, row, count)
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


def _score_file(cfg: Config, row: _Row, count: int | None) -> dict:
    """Compute the top-1 accuracy of an exported classifier, in percent."""
    file = cast(ExportedModel, row.file)
    settings: dict[str, Any] = dict(type='ClsDataPreprocessor')
    settings |= dict(cfg.model.get('data_preprocessor') or {}, mixup=0.0, cutmix=0.0)

    class Classifier:
        """A file in the place of a model."""

        data_preprocessor = MODELS.build(settings)

        def __call__(self, images: Tensor) -> Tensor:
            return torch.from_numpy(file.logits(images.numpy()))

    model: Any = Classifier()
    data = ConfigImages(cfg, model, 'test', count, seed=0)
    pairs = data.pairs(model, row.result['precision'])
    hits = sum(int((guess == truth).sum()) for guess, truth in pairs)
    return dict(images=len(data), top1=100 * hits / len(data))
