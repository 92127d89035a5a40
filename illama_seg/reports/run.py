"""Report a training run: table, pictures, curves and their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import predict
from illama_seg.apis.scores import scores_table
from illama_seg.apis.work_dir import find_run
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.evaluation import ConfusionMatrix, colour_baseline, position_baseline
from illama_seg.visualization.curves import draw_curves, read_scalars
from illama_seg.visualization.sheets import draw_rows


def evaluate(model: nn.Module, pairs: LabelledImages) -> tuple[dict, list[float]]:
    """Predict every image and compare.

    Returns:
        Summary of the :class:`ConfusionMatrix`, and the pixel accuracy of each image.
    """
    matrix = ConfusionMatrix(dataset_meta(model)['classes'])
    accuracies = []
    for image, label, _ in tqdm(pairs, desc='evaluating', unit='image'):
        guess = predict(model, image)
        matrix.update(label, guess)
        counted = label != 255
        accuracies.append(
            float((guess == label)[counted].mean()) if counted.any() else 1
        )
    return matrix.summary(), accuracies


def report_run(
    run: str | Path, num_images: int = 6, baselines: bool = False
) -> tuple[dict, str]:
    """Evaluate a run's last checkpoint on its validation set, and draw it.

    Writes ``result.json``, ``predictions.png`` and ``curves.png`` into the run. A
    classification is not evaluated anew: it has the last figures of its log, and no
    ``predictions.png``.

    Args:
        run: work dir of a finished ``tools/train.py``.
        num_images: rows of the picture, spread from the best image to the worst.
        baselines: also score a per-pixel colour classifier and a model that ignores
            the image, both fitted to the training set.

    Returns:
        The result and a readable table of it.

    Raises:
        FileNotFoundError: if the folder is not the work dir of a run.
        ValueError: if its files do not fit each other.
    """
    if num_images < 1:
        raise UserError(f'--num-images {num_images}: expected at least 1')
    run = Path(run)
    cfg, checkpoint, scalars = find_run(run)
    if 'decode_head' not in cfg.model:
        return _report_log(run, checkpoint, scalars)
    model = load_segmentor(cfg.copy(), checkpoint)
    meta, pairs = dataset_meta(model), LabelledImages(cfg, 'val')
    result, accuracies = evaluate(model, pairs)
    result.update(checkpoint=checkpoint.name, images=len(pairs), precision='float32')
    result['image_accuracy'] = {
        pairs.name(index): round(100 * accuracy, 2)
        for index, accuracy in enumerate(accuracies)
    }
    if baselines:
        result['baselines'] = _baselines(cfg, pairs, meta['classes'])
    result['curves'] = draw_curves(scalars, run / 'curves.png')

    order = np.argsort(accuracies)[::-1]
    chosen = order[
        np.linspace(0, len(order) - 1, min(num_images, len(order))).astype(int)
    ]
    rows = []
    for index in sorted(set(chosen.tolist())):
        image, label, path = pairs[index]
        caption = f'{Path(path).stem}\n{100 * accuracies[index]:.1f} % of pixels'
        rows.append((image[..., ::-1], label, predict(model, image), caption))
    draw_rows(rows, meta['classes'], meta['palette'], run / 'predictions.png')
    (run / 'result.json').write_text(json.dumps(result, indent=1))
    return result, scores_table(result)


def _report_log(run: Path, checkpoint: Path, scalars: list[Path]) -> tuple[dict, str]:
    """The report of a classification, as of :func:`report_run`."""
    logged = read_scalars(scalars)
    figures = {
        key: points[-1][1]
        for key, points in sorted(logged.items())
        if key.startswith('accuracy/')
    }
    curves = draw_curves(scalars, run / 'curves.png')
    result = dict(figures, checkpoint=checkpoint.name, curves=curves)
    (run / 'result.json').write_text(json.dumps(result, indent=1))
    said = ', '.join(f'{key} {value:.1f}' for key, value in figures.items())
    return result, f'{checkpoint.name}: {said or "never validated"}, by the log'


def _baselines(cfg: Config, val: LabelledImages, classes: tuple[str, ...]) -> dict:
    def pairs(source: LabelledImages) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((image, label) for image, label, _ in source)

    train = LabelledImages(cfg, 'train')
    colour = colour_baseline(pairs(train), pairs(val), classes)
    position = position_baseline(pairs(train), pairs(val), classes)
    return {
        'colour of the pixel alone': colour['mIoU'],
        'place in the image alone': position['mIoU'],
    }
