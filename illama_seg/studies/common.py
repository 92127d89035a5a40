"""Steps that several studies share: options, folders, earlier results, evaluation."""

import csv
import json
import multiprocessing
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from tqdm import tqdm

from illama_seg.apis.models import dataset_meta
from illama_seg.apis.prediction import predict
from illama_seg.apis.user_errors import check_writable, options_explained
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import MissingFileError, UserError
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.files import write_whole
from illama_seg.studies.tables import Table


def check_at_least(least: int, **parameters: Any) -> None:
    """Raise a UserError at a number, or a list with one, below ``least``; skip None."""
    for name, value in parameters.items():
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(number is not None and number < least for number in numbers):
            raise UserError(f'expected at least {least}', **{name: value})


def check_share(**parameters: float) -> None:
    """Raise a UserError at a share that is not between 0 and 1."""
    for name, value in parameters.items():
        if not 0 < value < 1:
            raise UserError('expected a share between 0 and 1', **{name: value})


def results_path(out: str | Path | None, cfg: Config, name: str) -> Path:
    """Return the path of results and make its folder, or raise a UserError.

    By default it is ``name``, a folder or a file with a suffix, in the work dir.
    """
    path = Path(out or Path(cfg.work_dir) / name)
    check_writable(path.parent if Path(name).suffix else path)
    return path


def file_name(model: str) -> str:
    """Return a model's name with '_' for what the name of a file cannot have."""
    return re.sub(r'[^\w.-]+', '_', model)


def read_earlier(
    paths: Sequence[str | Path], name: str, check: Callable[[list[dict]], Any]
) -> list[dict]:
    """Read ``models`` of the JSON files of earlier calls, which usually have ``name``.

    ``check`` is called with each file's models before anything is measured: its
    KeyError, TypeError, IndexError or ValueError becomes a UserError.
    """
    earlier: list[dict] = []
    for path in paths:
        try:
            models = json.loads(Path(path).read_text())['models']
            check(models)
        except FileNotFoundError as error:
            raise MissingFileError('no such file', beside=str(path)) from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f'expected the {name} of an earlier call with the same settings '
                f'({type(error).__name__}: {error})',
                beside=str(path),
            ) from error
        earlier += models
    return earlier


def write_results(
    path: Path, tables: Sequence[Table], indent: int | None = 1, **results: Any
) -> dict:
    """Write results with their tables and versions to a JSON file; return its content.

    A file of long curves has no ``indent``.
    """
    versions = dict(torch=torch.__version__, timm=timm.__version__)
    content = dict(tables=list(map(asdict, tables)), **results, versions=versions)
    write_whole(path, json.dumps(content, indent=indent) + '\n')
    return content


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table with its heads."""
    with path.open('w', newline='', encoding='utf-8') as file:
        csv.writer(file).writerows([columns, *rows])


def mean_and_std(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and the sample deviation, which is 0 for one value."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return dict(mean=statistics.fmean(values), std=std)


def spread(total: int, count: int) -> list[int]:
    """Return at most ``count`` different indices, spread evenly over range(total)."""
    places = np.linspace(0, total - 1, min(count, total))
    return places.round().astype(int).tolist()


def run_apart(work: Callable, *args: Any) -> Any:
    """Call a function in a new process; raise BrokenProcessPool if it is killed."""
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *args).result()


def build_model(cfg: Config) -> nn.Module:
    """Build the model in eval mode, with random weights, or raise UserError."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    with options_explained(cfg):
        return MODELS.build(cfg.model).eval()


def build_on_meta(cfg: Config) -> nn.Module:
    """Build the model in eval mode without memory for its weights."""
    try:
        with torch.device('meta'):
            return build_model(cfg)
    except RuntimeError:  # some of mmseg's backbones read numbers of a tensor
        return build_model(cfg).to('meta')


def training_shape(model: nn.Module) -> tuple[int, int]:
    """Return (height, width) in pixels of a model's training images."""
    parts: Any = model
    if size := getattr(parts.data_preprocessor, 'size', None):
        return tuple(size)
    patch = parts.backbone.patch_embed.proj.stride
    height, width = parts.backbone.grid_size
    return height * patch[0], width * patch[1]


def image_channels(model: nn.Module) -> int:
    """Return the number of channels of the images that a model takes."""
    return next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))


def evaluate(
    model: nn.Module, pairs: LabelledImages, title: str = 'evaluating'
) -> tuple[dict, np.ndarray]:
    """Predict every image, one in memory at a time, and compare it with its labels.

    Returns:
        Summary of the :class:`ConfusionMatrix`, and (num_images, 2): mIoU and pixel
        accuracy of each image in percent, NaN where nothing is labelled.
    """
    total = ConfusionMatrix(dataset_meta(model)['classes'])
    scores = np.full((len(pairs), 2), np.nan)
    for index, (image, label, _) in enumerate(tqdm(pairs, title, unit='image')):
        matrix = ConfusionMatrix(total.classes)
        matrix.update(label, predict(model, image))
        total.counts += matrix.counts
        if matrix.counts.any():
            summary = matrix.summary()
            scores[index] = summary['mIoU'], summary['aAcc']
    return total.summary(), scores
