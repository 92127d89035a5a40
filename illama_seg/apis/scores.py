"""Scores of a segmentation as table, CSV, JSON and image."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from prettytable import PrettyTable

from illama_seg.evaluation import ConfusionMatrix
from illama_seg.files import write_whole

FILES = ('scores.json', 'per_class.csv', 'confusion.png', 'confusion.json')


def scores_table(result: dict) -> str:
    """Format the result of :func:`write_scores` as a table."""
    table = PrettyTable(['class', 'IoU %', 'accuracy %'], align='r')
    table.float_format = '.1'
    table.align['class'] = 'l'
    for name, row in result['classes'].items():
        table.add_row([name, row['IoU'], '-' if row['Acc'] is None else row['Acc']])
    lines = [
        table.get_string(),
        f'mIoU {result["mIoU"]:.1f} over {len(result["classes"])} classes present, '
        f'mean accuracy {result["mAcc"]:.1f}, pixel accuracy {result["aAcc"]:.1f}, '
        f'final score {result["final_score"]:.1f}, {result["images"]} images',
    ]
    for name, miou in result.get('baselines', {}).items():
        lines.append(f'mIoU {miou:.1f} from the {name} (for comparison)')
    return '\n'.join(lines)


def write_scores(
    matrix: ConfusionMatrix,
    images: int,
    folder: str | Path,
    precision: str | None = None,
) -> dict:
    """Write scores.json, per_class.csv, confusion.png and confusion.json.

    The CSV has a row for each class, with empty scores where a class does not occur.
    confusion.json has the numbers of confusion.png: ``counts`` in pixels, a row for
    each annotated class and a column for each predicted one, and ``most_confused``.

    Args:
        matrix: counts of the whole data set.
        images: number of images counted.
        folder: folder for the files; made where it is missing.
        precision: name of the dtype of the predictions, if known.

    Returns:
        Content of scores.json: scores in percent, overall and per class.
    """
    from illama_seg.visualization.confusion import draw_confusion  # matplotlib

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    result = dict(matrix.summary(), images=images)
    if precision is not None:
        result['precision'] = precision
    write_whole(folder / 'scores.json', json.dumps(result, indent=1))
    with (folder / 'per_class.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            ['number', 'class', 'IoU %', 'accuracy %', 'annotated px', 'predicted px']
        )
        annotated, predicted = matrix.counts.sum(1), matrix.counts.sum(0)
        for number, name in enumerate(matrix.classes):
            scores = (
                '' if np.isnan(value) else round(100 * float(value), 4)
                for value in (matrix.iou[number], matrix.accuracy[number])
            )
            writer.writerow(
                [number, name, *scores, annotated[number], predicted[number]]
            )
    numbers = dict(
        classes=matrix.classes,
        most_confused=draw_confusion(matrix, folder / 'confusion.png'),
        counts=matrix.counts.tolist(),
    )
    write_whole(folder / 'confusion.json', json.dumps(numbers))
    return result


class ScoresWriter(Hook):
    """Count the predictions of a test, and write the scores at its end.

    Works beside mmseg's ``IoUMetric``. Skips samples without an annotation and the
    images that a distributed sampler repeats.

    Args:
        folder: folder for the files.
        precision: name of the dtype of the test.
    """

    def __init__(self, folder: str | Path, precision: str = 'float32') -> None:
        self.folder, self.precision = Path(folder), precision

    def before_test_epoch(self, runner: Any) -> None:
        """Reset the counts."""
        dataset = runner.test_loop.dataloader.dataset
        ignored = [
            metric.ignore_index
            for metric in runner.test_loop.evaluator.metrics
            if hasattr(metric, 'ignore_index')
        ]
        self.matrix = ConfusionMatrix(dataset.metainfo['classes'], *ignored[:1])
        self.total, self.seen, self.images = len(dataset), 0, 0

    def after_test_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Count a batch."""
        for sample in outputs or ():
            place = self.seen * get_world_size() + get_rank()
            self.seen += 1
            if place >= self.total or 'gt_sem_seg' not in sample:
                continue
            label, guess = (
                field.data.squeeze(0).cpu().numpy()
                for field in (sample.gt_sem_seg, sample.pred_sem_seg)
            )
            self.matrix.update(label, guess)
            self.images += 1

    def after_test_epoch(self, runner: Any, metrics: dict | None = None) -> None:
        """Sum the counts of all processes and write."""
        counts = torch.tensor([self.images, *self.matrix.counts.ravel()])
        all_reduce(counts)
        images, *_ = numbers = counts.tolist()
        self.matrix.counts = np.reshape(numbers[1:], self.matrix.counts.shape)
        if images and is_main_process():
            result = write_scores(self.matrix, images, self.folder, self.precision)
            print_log(
                f'final score (mean of pixel accuracy and mIoU) '
                f'{result["final_score"]:.2f}; {", ".join(FILES)} in {self.folder}',
                logger='current',
            )
