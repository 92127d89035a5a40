"""Report of a training run: table, images, curves and JSON file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import predict
from illama_seg.apis.scores import scores_table
from illama_seg.apis.work_dir import find_run
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.evaluation import colour_baseline, position_baseline
from illama_seg.reports.tables import format_value
from illama_seg.studies.common import check_at_least, evaluate, spread, write_results
from illama_seg.studies.tables import Table
from illama_seg.visualization.curves import draw_curves, read_scalars
from illama_seg.visualization.sheets import draw_rows

BASELINES = {
    'colour of the pixel alone': colour_baseline,
    'place in the image alone': position_baseline,
}
FACTS = {
    'mIoU': 'mIoU, %',
    'mAcc': 'mean accuracy, %',
    'aAcc': 'pixel accuracy, %',
    'final_score': 'final score, %',
    'images': 'images',
    'checkpoint': 'checkpoint',
    'accuracy/top1': 'top-1 of the last validation, %',
    'accuracy/top5': 'top-5 of the last validation, %',
}
COLUMNS = {'class': '{name}', 'IoU, %': '{IoU:.2f}', 'accuracy, %': '{Acc:.2f}'}


def report_run(
    run: str | Path, num_images: int = 6, baselines: bool = False
) -> tuple[dict, str]:
    """Evaluate a run's last checkpoint on its validation set and draw the result.

    Writes ``result.json``, ``predictions.png`` and ``curves.png`` into the run. A
    classification is not evaluated again: its last scores are read from the log, and
    it has no ``predictions.png``.

    Args:
        run: work dir of a finished training.
        num_images: rows of the drawing, spread from the best image to the worst.
        baselines: also score a per-pixel colour classifier and a model that ignores
            the image, both fitted to the training set.

    Returns:
        Content of result.json, and a readable table.

    Raises:
        MissingFileError: if the folder is not the work dir of a run.
        UserError: if its files do not fit each other.
    """
    check_at_least(1, num_images=num_images)
    run = Path(run)
    cfg, checkpoint, scalars = find_run(run)
    if 'decode_head' not in cfg.model:
        return _report_log(run, checkpoint, scalars)
    model = load_segmentor(cfg.copy(), checkpoint)
    meta, pairs = dataset_meta(model), LabelledImages(cfg, 'val')
    result, scores = evaluate(model, pairs)
    accuracies = np.nan_to_num(scores[:, 1], nan=100.0)
    result.update(checkpoint=checkpoint.name, images=len(pairs), precision='float32')
    result['image_accuracy'] = {
        pairs.name(index): round(accuracy, 2)
        for index, accuracy in enumerate(accuracies.tolist())
    }
    if baselines:
        result['baselines'] = _baselines(cfg, pairs, meta['classes'])
    result['curves'] = draw_curves(scalars, run / 'curves.png')

    order = np.argsort(accuracies)[::-1]
    chosen = order[spread(len(order), num_images)]
    rows = []
    for index in sorted(chosen.tolist()):
        image, label, path = pairs[index]
        caption = f'{Path(path).stem}\n{accuracies[index]:.1f} % of pixels'
        picture = pairs.picture(image)[..., ::-1]
        rows.append((picture, label, predict(model, image), caption))
    draw_rows(rows, meta['classes'], meta['palette'], run / 'predictions.png')
    classes = [dict(row, name=name.strip()) for name, row in result['classes'].items()]
    table = Table.of(classes, COLUMNS)
    result = write_results(run / 'result.json', [_facts(result), table], **result)
    return result, scores_table(result)


def _facts(result: dict) -> Table:
    names = FACTS | {name: f'mIoU of the {name}, %' for name in BASELINES}
    values = result | result.get('baselines', {})
    present = [key for key in names if key in values]
    return Table([], [[names[key], format_value(values[key])] for key in present])


def _report_log(run: Path, checkpoint: Path, scalars: list[Path]) -> tuple[dict, str]:
    """Report a classification by its log."""
    logged = read_scalars(scalars)
    keys = sorted(key for key in logged if key.startswith('accuracy/'))
    scores = {key: logged[key][-1][1] for key in keys}
    curves = draw_curves(scalars, run / 'curves.png')
    result: dict[str, Any] = dict(scores, checkpoint=checkpoint.name, curves=curves)
    result = write_results(run / 'result.json', [_facts(result)], **result)
    text = ', '.join(f'{key} {value:.1f}' for key, value in scores.items())
    return result, f'{checkpoint.name}: {text or "never validated"}, by the log'


def _baselines(cfg: Config, val: LabelledImages, classes: tuple[str, ...]) -> dict:
    def pairs(source: LabelledImages) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((source.picture(image), label) for image, label, _ in source)

    train = LabelledImages(cfg, 'train')
    return {
        name: baseline(pairs(train), pairs(val), classes)['mIoU']
        for name, baseline in BASELINES.items()
    }
