"""Segmentation runs image by image: where one is better, and where none is good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from torch import nn
from tqdm import tqdm

from illama_seg.apis.models import dataset_meta, load_segmentor
from illama_seg.apis.prediction import predict
from illama_seg.apis.user_errors import options_explained
from illama_seg.apis.work_dir import find_run, runs_in, scalars_of
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.errors import UserError
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.studies.comparison.classes import FILES as CLASS_FILES
from illama_seg.studies.comparison.classes import Scores, compare_classes, saved_scores
from illama_seg.visualization.overlays import colourise
from illama_seg.visualization.sheets import draw_sheet

BETTER = ' better'
LONGEST = 480  # pixels, of a drawn image's side
FILES = ('images.png', 'images.json')


@dataclass
class _Run:
    """A run of a line: what its predictions are made of."""

    line: str
    folder: Path
    cfg: Config
    checkpoint: Path

    @property
    def name(self) -> str:
        """``LINE``, or ``LINE/SEED`` where a line has several runs."""
        name = self.folder.resolve().name
        return name if name == self.line else f'{self.line}/{name}'


def compare_images(
    runs: Sequence[str | Path], out: str | Path, num_images: int = 2
) -> tuple[str, list[str]]:
    """Compare segmentation runs class by class and image by image.

    Predicts the validation images with each run's last checkpoint, one model and one
    image in memory at a time; kept of each image are its figures. All runs see the
    images of the first run's config. Writes what ``classes.compare_classes`` does, and
    ``images.png`` and ``images.json``: the images where each group of runs is better
    than every other, the worst and the best for all. An image's mIoU is over the
    classes in its annotation or its prediction.
    What cannot be had is left out, and said.

    Args:
        runs: as for :func:`illama_seg.studies.compare_runs`.
        out: folder to write.
        num_images: rows of each kind; 0 predicts nothing, and takes the classes from
            ``test/scores.json`` that ``tools/test.py`` left in the runs.

    Returns:
        Readable text, and the names of the files written; nothing of classifications.

    Raises:
        FileNotFoundError: if a folder is, and has, no work dir.
        ValueError: if ``num_images`` is negative.
    """
    if num_images < 0:
        raise UserError(f'--images {num_images}: expected 0 or more')
    lines = {Path(run).resolve().name: runs_in(Path(run)) for run in runs}
    folders = [folder for found in lines.values() for folder in found]
    if not all('mIoU' in scalars_of(folder) for folder in folders):
        return '', []
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    scores: Scores = {}
    files: list[str] = []
    notes = []
    if num_images:
        try:
            scores, source, note = _compare_predictions(lines, out, num_images)
            files += FILES
            notes.append(note)
        except (ValueError, OSError) as error:
            notes.append(f'neither images nor classes compared: {_one_line(error)}')
    if not scores:
        try:
            scores, source = saved_scores(lines)
        except (ValueError, OSError) as error:
            if not num_images:
                notes.append(f'no classes compared: {_one_line(error)}')
    if scores:
        notes.insert(0, compare_classes(scores, source, out))
        files = [*CLASS_FILES, *files]
    return '\n'.join(filter(None, notes)), files


def rank_images(mious: np.ndarray, lines: Sequence[str]) -> dict[str, list[int]]:
    """Order images by what there is to see in them.

    Args:
        mious: (lines, images), NaN in images without annotation.
        lines: their names.

    Returns:
        Kind -> images. Of each line those where it has more than every other, the
        largest margin first; for all lines first where the best of them is worst, and
        first where the worst of them is best.
    """
    annotated = np.flatnonzero(~np.isnan(mious).any(0))
    mious = mious[:, annotated]
    kinds = {}
    if len(lines) > 1:
        for number, line in enumerate(lines):
            margin = mious[number] - np.delete(mious, number, 0).max(0)
            order = np.argsort(-margin, kind='stable')
            kinds[line + BETTER] = order[margin[order] > 0]
    for_all = ' for all' if len(lines) > 1 else ''
    kinds[f'worst{for_all}'] = np.argsort(mious.max(0), kind='stable')
    kinds[f'best{for_all}'] = np.argsort(-mious.min(0), kind='stable')
    return {kind: annotated[order].tolist() for kind, order in kinds.items()}


def _compare_predictions(
    lines: dict[str, list[Path]], out: Path, num_images: int
) -> tuple[Scores, str, str]:
    """Scores, where they come from, and on how many images each line is better."""
    members = [
        _Run(line, folder, *find_run(folder)[:2])
        for line, folders in lines.items()
        for folder in folders
    ]
    pairs = _common_images(members)
    scores: Scores = {line: {} for line in lines}
    figures = {}
    for run in members:
        summary, figures[run.name] = _score(_load(run), pairs, run.name)
        scores[run.line][run.name] = summary
    means = {
        line: np.mean([figures[name] for name in found], 0)
        for line, found in scores.items()
    }
    mious = np.stack([found[:, 0] for found in means.values()])
    kinds = rank_images(mious, list(lines))
    chosen = [
        (why, index) for why, found in kinds.items() for index in found[:num_images]
    ]
    if not chosen:
        raise UserError('no pixel of the validation images is annotated')
    better = {
        kind.removesuffix(BETTER): len(found)
        for kind, found in kinds.items()
        if kind.endswith(BETTER)
    }
    names = _names(pairs)
    numbers = dict(
        unit='percent; mIoU of the classes in an image, and pixel accuracy',
        checkpoints={run.name: run.checkpoint.name for run in members},
        better=better,
        drawn=[dict(why=why, image=names[index]) for why, index in chosen],
        images=[
            dict(
                image=name,
                mean={line: _figures(found[index]) for line, found in means.items()},
                runs={name: _figures(found[index]) for name, found in figures.items()},
            )
            for index, name in enumerate(names)
        ],
    )
    (out / 'images.json').write_text(json.dumps(numbers, indent=1))
    _draw(members, figures, means, pairs, chosen, out / 'images.png')
    source = f'last checkpoints on {len(pairs)} validation images'
    counts = ', '.join(f'{line} {count}' for line, count in better.items())
    note = f'images where one is better than every other: {counts}' if better else ''
    return scores, source, note


def _common_images(members: Sequence[_Run]) -> LabelledImages:
    """Images of the first run, which all were validated on."""
    every = []
    for run in members:
        with options_explained(run.cfg):
            every.append(LabelledImages(run.cfg, 'val'))
    for run, pairs in zip(members, every, strict=True):
        for what, of in (('classes', _classes), ('validation images', _names)):
            expected, found = of(every[0]), of(pairs)
            if expected != found:
                only = next(iter(set(found) ^ set(expected)), None)
                where = f'; only in one: {only}' if only else ', in another order'
                raise UserError(
                    f'{members[0].name} and {run.name} have other {what} '
                    f'({len(expected)} and {len(found)}{where}): compare runs of the '
                    'same data'
                )
    return every[0]


def _classes(pairs: LabelledImages) -> list[str]:
    return list(pairs.dataset.metainfo['classes'])


def _names(pairs: LabelledImages) -> list[str]:
    return [pairs.name(index) for index in range(len(pairs))]


def _load(run: _Run) -> nn.Module:
    return load_segmentor(run.cfg.copy(), run.checkpoint)


def _score(
    model: nn.Module, pairs: LabelledImages, title: str
) -> tuple[dict, np.ndarray]:
    """Summary of all images, and (images, 2): each one's mIoU and pixel accuracy."""
    total = ConfusionMatrix(dataset_meta(model)['classes'])
    figures = np.full((len(pairs), 2), np.nan)
    for index, (image, label, _) in enumerate(tqdm(pairs, desc=title, unit='image')):
        matrix = ConfusionMatrix(total.classes)
        matrix.update(label, predict(model, image))
        total.counts += matrix.counts
        if matrix.counts.any():
            found = matrix.summary()
            figures[index] = found['mIoU'], found['aAcc']
    return total.summary(), figures


def _draw(
    members: Sequence[_Run],
    figures: dict[str, np.ndarray],
    means: dict[str, np.ndarray],
    pairs: LabelledImages,
    chosen: Sequence[tuple[str, int]],
    path: Path,
) -> None:
    """Rows of image | annotation | prediction of each line's first run."""
    drawn: dict[str, dict[int, tuple[np.ndarray, str]]] = {line: {} for line in means}
    for line in means:
        runs = [run for run in members if run.line == line]
        model, first = _load(runs[0]), runs[0].name
        meta = dataset_meta(model)
        for index in {index for _, index in chosen}:
            guess = _smaller(predict(model, pairs[index][0]))
            miou, accuracy = figures[first][index]
            mean = f' (mean of {len(runs)}: {means[line][index, 0]:.1f})'
            drawn[line][index] = (
                guess,
                f'{first}\nmIoU {miou:.1f}{mean if len(runs) > 1 else ""}, '
                f'{accuracy:.1f} % of pixels',
            )
    classes, palette = meta['classes'], meta['palette']
    rows, present = [], set()
    for why, index in chosen:
        image, label, file = pairs[index]
        label = _smaller(label)
        present |= set(np.unique(label).tolist())
        row = [
            (_smaller(image)[..., ::-1], f'{why}\n{Path(file).stem}'),
            (colourise(label, palette), 'annotation (black: none)'),
        ]
        for found in drawn.values():
            guess, caption = found[index]
            shown = np.where(label == 255, 255, guess)
            present |= set(np.unique(shown).tolist())
            row.append((colourise(shown, palette), caption))
        rows.append(row)
    entries = [(classes[number], palette[number]) for number in sorted(present - {255})]
    draw_sheet(rows, entries, path)


def _smaller(picture: np.ndarray) -> np.ndarray:
    scale = LONGEST / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = [max(round(scale * side), 1) for side in picture.shape[1::-1]]
    how = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=how)


def _figures(pair: np.ndarray) -> dict[str, float] | None:
    """None where nothing is annotated."""
    if np.isnan(pair).any():
        return None
    return dict(zip(('mIoU', 'accuracy'), pair.round(2).tolist(), strict=True))


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())
