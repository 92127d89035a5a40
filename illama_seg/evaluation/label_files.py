"""Count a folder of predicted label images against a folder of annotations."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError
from tqdm import tqdm

from illama_seg.datasets.images import bombs_refused, open_image
from illama_seg.errors import UserError
from illama_seg.evaluation.confusion import ConfusionMatrix
from illama_seg.evaluation.pairing import SHOWN, FilePair, pair_files

IGNORED, UNKNOWN = -1, -2
CHUNK = 16  # images of a task


@dataclass(frozen=True)
class LabelIds:
    """Meaning of the numbers in label images.

    Args:
        classes: names of the classes.
        annotated: (256,) class number of each id in the annotations, ``IGNORED`` or
            ``UNKNOWN``.
        predicted: (256,) class number of each id in the predictions, likewise.
    """

    classes: tuple[str, ...]
    annotated: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(
        cls,
        classes: Sequence[str],
        reduce_zero_label: bool = False,
        label_map: dict[int, int] | None = None,
        ignore_index: int | None = None,
        predictions_from_zero: bool = False,
    ) -> LabelIds:
        """Read ids as mmseg's ``LoadAnnotations`` does.

        Args:
            classes: names of the classes.
            reduce_zero_label: id 0 is not annotated, ids 1, 2, ... are the classes.
            label_map: id -> new id, for some of a data set's classes; applied
                after ``reduce_zero_label``.
            ignore_index: a further id that is not counted, beside 255.
            predictions_from_zero: predictions are class numbers, whatever the ids of
                the annotations.
        """
        number: np.ndarray = np.arange(256)
        if reduce_zero_label:
            number = np.where(number == 0, 255, number - 1)
            number[255] = 255
        known = np.where(number < len(classes), number, UNKNOWN)
        for old, new in (label_map or {}).items():
            known[number == old] = new
        known[(known == 255) | (number == 255)] = IGNORED
        if ignore_index is not None:
            known[ignore_index] = IGNORED
        predicted = np.where(known == IGNORED, UNKNOWN, known)
        if predictions_from_zero:
            predicted = np.where(np.arange(256) < len(classes), np.arange(256), UNKNOWN)
        return cls(tuple(classes), known.astype(np.int16), predicted.astype(np.int16))


def count_label_files(
    predictions: str | Path,
    annotations: str | Path,
    ids: LabelIds,
    partial: bool = False,
    num_workers: int | None = None,
    *,
    img_suffix: str | Sequence[str] = '.png',
    seg_map_suffix: str = '.png',
    names: Collection[str] | None = None,
) -> tuple[ConfusionMatrix, int]:
    """Count predicted PNGs against the annotations of the same images, in processes.

    Both have the same place below their folder. A prediction ends like its image, or
    like its annotation, or in '.png' alone. Memory does not grow with the number of
    images.

    Args:
        predictions: folder, searched with its subfolders.
        annotations: folder of the annotations, likewise.
        ids: meaning of the numbers in both.
        partial: leave out the images that only one of the folders has.
        num_workers: processes; by default one for each core.
        img_suffix: ending or endings of the images' names, such as
            '_leftImg8bit.png'.
        seg_map_suffix: ending of the annotations' names, such as '_labelTrainIds.png';
            other files beside them are passed over.
        names: names of the images to count, without ending; by default all.

    Returns:
        The counts and the number of images.

    Raises:
        MissingFileError: if a folder is missing or a file has no counterpart.
        UserError: if files are damaged, differ in size or hold other ids; names the
            first of them.
    """
    pairs = pair_files(
        Path(predictions),
        Path(annotations),
        partial,
        img_suffix=img_suffix,
        seg_map_suffix=seg_map_suffix,
        names=names,
    )
    workers = num_workers or os.cpu_count() or 1
    matrix, faults = ConfusionMatrix(ids.classes), []
    count = functools.partial(_count_chunk, ids)
    chunks = [pairs[start : start + CHUNK] for start in range(0, len(pairs), CHUNK)]
    # Forked processes need not import torch again; they do not run it.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('fork' if 'fork' in methods else None)
    with (
        tqdm(total=len(pairs), unit='image') as bar,
        ProcessPoolExecutor(min(workers, len(pairs)), context) as pool,
    ):
        for counts, messages, number in pool.map(count, chunks):
            matrix.counts += counts
            faults += messages
            bar.update(number)
    if faults:
        raise UserError(
            f'{len(faults)} of {len(pairs)} images cannot be compared:\n  '
            + '\n  '.join(faults[:SHOWN])
            + ('\n  ...' if len(faults) > SHOWN else '')
        )
    return matrix, len(pairs)


def _count_chunk(
    ids: LabelIds, pairs: list[FilePair]
) -> tuple[np.ndarray, list[str], int]:
    matrix, faults = ConfusionMatrix(ids.classes, IGNORED), []
    for guess, truth in pairs:
        try:
            label, prediction = _compared(guess, truth, ids)
        except ValueError as error:
            faults.append(str(error))
        else:
            matrix.update(label, prediction)
    return matrix.counts, faults, len(pairs)


def _compared(
    guess_path: Path, truth_path: Path, ids: LabelIds
) -> tuple[np.ndarray, np.ndarray]:
    """Read and check an annotation and its prediction as class numbers."""
    truth_ids, guess_ids = read_labels(truth_path), read_labels(guess_path)
    if truth_ids.shape != guess_ids.shape:
        raise UserError(
            f'{guess_path} is {guess_ids.shape} (height, width), its annotation '
            f'{truth_path} is {truth_ids.shape}: predictions need the size of the '
            'image as it is on the disk, not as the model saw it'
        )
    truth = ids.annotated[truth_ids]
    unknown = truth_ids[truth == UNKNOWN]
    if unknown.size:
        raise UserError(
            f'{truth_path}: id {unknown[0]} in {unknown.size} pixels; annotations of '
            f'these {len(ids.classes)} classes have {_spans(ids.annotated)}. Are '
            'classes, reduce_zero_label or ignore_index those of another data set?'
        )
    guess = ids.predicted[guess_ids]
    unknown = guess_ids[(guess == UNKNOWN) & (truth >= 0)]
    if unknown.size:
        raise UserError(
            f'{guess_path}: id {unknown[0]} in {unknown.size} pixels that are '
            f'annotated; predictions need {_spans(ids.predicted, False)}. Set '
            'predictions_from_zero for class numbers from 0, not for the ids of the '
            'annotations'
        )
    return truth, guess


def _spans(table: np.ndarray, with_ignored: bool = True) -> str:
    """Describe the ids of a table, such as '1..150 (classes), 0, 255 (not counted)'."""
    numbers = np.flatnonzero(table >= 0)
    text = f'{numbers.min()}..{numbers.max()} (classes)'
    ignored = ', '.join(map(str, np.flatnonzero(table == IGNORED)))
    return f'{text}, {ignored} (not counted)' if ignored and with_ignored else text


def read_labels(path: Path) -> np.ndarray:
    """Read a label image: (H, W) uint8; a palette's numbers, not its colours.

    Raises:
        UserError: if it is damaged, not one channel of 8 bits, or declares too many
            pixels; names the file.
    """
    try:
        with bombs_refused(path):
            labels = np.asarray(open_image(path))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f'{path} is damaged or no image: {error}') from error
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2:
        raise UserError(
            f'{path} has {labels.shape[2]} channels; expected one, of label ids '
            '(label images, not coloured overlays)'
        )
    if labels.dtype != np.uint8:
        if labels.max() > 255 or labels.min() < 0:
            raise UserError(f'{path}: id {labels.max()}; expected 0..255')
        labels = labels.astype(np.uint8)
    return labels
