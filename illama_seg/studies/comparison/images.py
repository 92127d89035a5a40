"""Comparison of segmentation runs image by image."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from torch import nn

from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import predict
from illama_seg.apis.user_errors import options_explained
from illama_seg.apis.work_dir import find_run, runs_in, scalars_of
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.studies.common import check_at_least, evaluate
from illama_seg.studies.comparison.classes import (
    FILES as CLASS_FILES,
    Scores,
    compare_classes,
    saved_scores,
)
from illama_seg.studies.tables import Section
from illama_seg.visualization.overlays import colourise
from illama_seg.visualization.sheets import class_entries, draw_sheet

BETTER = ' better'
LONGEST = 480  # pixels, of a drawn image's side
FILES = ('images.png', 'images.json')
SECTION = Section(title='Images beside other runs', files='images.json')


@dataclass
class _Run:
    """A run of a group, with the files that its predictions need."""

    group: str
    folder: Path
    cfg: Config
    checkpoint: Path

    @property
    def name(self) -> str:
        """Return ``GROUP``, or ``GROUP/SEED`` where a group has several runs."""
        name = self.folder.resolve().name
        return name if name == self.group else f'{self.group}/{name}'


def compare_images(
    runs: Sequence[str | Path], out: str | Path, *, num_images: int = 2
) -> tuple[str, list[str]]:
    """Compare segmentation runs class by class and image by image.

    Predicts the validation images with each run's last checkpoint, with one model and
    one image in memory at a time. All runs predict the images of the first run's
    config. Writes the files of ``compare_classes``, and ``images.png`` and
    ``images.json``: the images where each group is better than all others, the worst
    and the best for all. An image's mIoU is over the classes in its annotation or its
    prediction. Parts that cannot be computed are skipped with a note.

    Args:
        runs: see :func:`illama_seg.studies.compare_runs`.
        out: folder to write to.
        num_images: rows of each kind; 0 predicts nothing and reads the classes from
            ``test/scores.json`` in the runs.

    Returns:
        Readable text, and the names of the files written; both empty for
        classifications.

    Raises:
        MissingFileError: if a folder neither is nor has a work dir.
        UserError: if ``num_images`` is negative.
    """
    check_at_least(0, num_images=num_images)
    groups = {Path(run).resolve().name: runs_in(Path(run)) for run in runs}
    folders = [folder for group in groups.values() for folder in group]
    if not all('mIoU' in scalars_of(folder) for folder in folders):
        return '', []
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    failure = ''
    if num_images:
        try:
            scores, source, note = _compare_predictions(groups, out, num_images)
        except (UserError, OSError) as error:
            failure = f'neither images nor classes compared: {_one_line(error)}'
        else:
            table = compare_classes(scores, source, out)
            return '\n'.join(filter(None, (table, note))), [*CLASS_FILES, *FILES]
    try:
        scores, source = saved_scores(groups)
    except (UserError, OSError) as error:
        return failure or f'no classes compared: {_one_line(error)}', []
    table = compare_classes(scores, source, out)
    return '\n'.join(filter(None, (table, failure))), [*CLASS_FILES]


def rank_images(mious: np.ndarray, groups: Sequence[str]) -> dict[str, list[int]]:
    """Order images by mIoU (groups, images), NaN for images without annotation.

    Returns:
        Kind -> images. For each group the images where it is better than all others,
        by decreasing margin; then all images by increasing score of the best group,
        and by decreasing score of the worst group.
    """
    annotated = np.flatnonzero(~np.isnan(mious).any(0))
    mious = mious[:, annotated]
    kinds = {}
    if len(groups) > 1:
        for number, group in enumerate(groups):
            margin = mious[number] - np.delete(mious, number, 0).max(0)
            order = np.argsort(-margin, kind='stable')
            kinds[group + BETTER] = order[margin[order] > 0]
    for_all = ' for all' if len(groups) > 1 else ''
    kinds[f'worst{for_all}'] = np.argsort(mious.max(0), kind='stable')
    kinds[f'best{for_all}'] = np.argsort(-mious.min(0), kind='stable')
    return {kind: annotated[order].tolist() for kind, order in kinds.items()}


def _compare_predictions(
    groups: dict[str, list[Path]], out: Path, num_images: int
) -> tuple[Scores, str, str]:
    """Return the scores, their origin, and a note on each group's better images."""
    members = [
        _Run(group, folder, *find_run(folder)[:2])
        for group, folders in groups.items()
        for folder in folders
    ]
    pairs = _common_images(members)
    scores: Scores = {group: {} for group in groups}
    by_run = {}
    for run in members:
        summary, by_run[run.name] = evaluate(_load(run), pairs, run.name)
        scores[run.group][run.name] = summary
    means = {
        group: np.mean([by_run[name] for name in summaries], 0)
        for group, summaries in scores.items()
    }
    mious = np.stack([mean[:, 0] for mean in means.values()])
    kinds = rank_images(mious, list(groups))
    chosen = [
        (why, index) for why, order in kinds.items() for index in order[:num_images]
    ]
    if not chosen:
        raise UserError('no pixel of the validation images is annotated')
    better = {g: len(kinds[g + BETTER]) for g in groups if g + BETTER in kinds}
    names = _names(pairs)
    numbers = dict(
        unit='percent; mIoU of the classes in an image, and pixel accuracy',
        checkpoints={run.name: run.checkpoint.name for run in members},
        better=better,
        drawn=[dict(why=why, image=names[index]) for why, index in chosen],
        images=[
            dict(
                image=name,
                mean={group: _scores(mean[index]) for group, mean in means.items()},
                runs={name: _scores(each[index]) for name, each in by_run.items()},
            )
            for index, name in enumerate(names)
        ],
    )
    write_whole(out / 'images.json', json.dumps(numbers, indent=1))
    _draw(
        members,
        by_run,
        means,
        pairs=pairs,
        chosen=chosen,
        path=out / 'images.png',
    )
    source = f'last checkpoints on {len(pairs)} validation images'
    counts = ', '.join(f'{group} {count}' for group, count in better.items())
    note = f'images where one is better than every other: {counts}' if better else ''
    return scores, source, note


def _common_images(members: Sequence[_Run]) -> LabelledImages:
    """Return the validation images of the first run, the same for all runs."""
    every = []
    for run in members:
        with options_explained(run.cfg):
            every.append(LabelledImages(run.cfg, 'val'))
    for run, pairs in zip(members, every, strict=True):
        for what, of in (('classes', _classes), ('validation images', _names)):
            expected, names = of(every[0]), of(pairs)
            if expected != names:
                only = next(iter(set(names) ^ set(expected)), None)
                where = f'; only in one: {only}' if only else ', in another order'
                raise UserError(
                    f'{members[0].name} and {run.name} have other {what} '
                    f'({len(expected)} and {len(names)}{where}): compare runs of the '
                    'same data'
                )
    return every[0]


def _classes(pairs: LabelledImages) -> list[str]:
    return list(pairs.dataset.metainfo['classes'])


def _names(pairs: LabelledImages) -> list[str]:
    return [pairs.name(index) for index in range(len(pairs))]


def _load(run: _Run) -> nn.Module:
    return load_segmentor(run.cfg.copy(), run.checkpoint)


def _draw(
    members: Sequence[_Run],
    by_run: dict[str, np.ndarray],
    means: dict[str, np.ndarray],
    *,
    pairs: LabelledImages,
    chosen: Sequence[tuple[str, int]],
    path: Path,
) -> None:
    """Draw rows of image | annotation | prediction of each group's first run."""
    drawn: list[dict[int, tuple[np.ndarray, str]]] = []
    for group, mean in means.items():
        runs = [run for run in members if run.group == group]
        model, first = _load(runs[0]), runs[0].name
        meta, shown = dataset_meta(model), {}
        for index in {index for _, index in chosen}:
            guess = _smaller(predict(model, pairs[index][0]))
            miou, accuracy = by_run[first][index]
            note = f' (mean of {len(runs)}: {mean[index, 0]:.1f})' if runs[1:] else ''
            text = f'{first}\nmIoU {miou:.1f}{note}, {accuracy:.1f} % of pixels'
            shown[index] = guess, text
        drawn.append(shown)
    classes, palette = meta['classes'], meta['palette']
    rows, present = [], set()
    for why, index in chosen:
        image, label, file = pairs[index]
        label = _smaller(label)
        maps = [(label, 'annotation (black: none)')]
        for predictions in drawn:
            guess, text = predictions[index]
            maps.append((np.where(label == 255, 255, guess), text))
        present |= {number for labels, _ in maps for number in np.unique(labels)}
        row = [(colourise(labels, palette), text) for labels, text in maps]
        picture = _smaller(pairs.picture(image))[..., ::-1]
        rows.append([(picture, f'{why}\n{Path(file).stem}'), *row])
    draw_sheet(rows, class_entries(present, classes, palette), path)


def _smaller(image: np.ndarray) -> np.ndarray:
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1:
        return image
    size = [max(round(scale * side), 1) for side in image.shape[1::-1]]
    how = cv2.INTER_AREA if image.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=how)


def _scores(pair: np.ndarray) -> dict[str, float] | None:
    """Name an image's scores; None where nothing is annotated."""
    if np.isnan(pair).any():
        return None
    return dict(zip(('mIoU', 'accuracy'), pair.round(2).tolist(), strict=True))


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
