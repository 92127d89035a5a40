"""Segment an image, or the lines of a video, as if its rows were arriving."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from torch import nn
from tqdm import tqdm

from illama_seg.apis.images import read_image, write_image
from illama_seg.apis.models import annotation_ids, dataset_meta
from illama_seg.apis.streaming import StreamSegmentor, check_streams
from illama_seg.apis.user_errors import check_writable
from illama_seg.apis.video import is_video, open_video, video_frames
from illama_seg.backbones.sequence import needs_height
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.images import JPEG_SIDE
from illama_seg.visualization.overlays import overlay
from illama_seg.visualization.streams import animate_stream


@dataclass
class Band:
    """Measurements of a band, when it was complete.

    Attributes:
        rows: rows of pixels whose labels were given, with this band.
        seconds: from the last row of the band to its labels.
        kept_rows: rows of patches whose keys and values are kept.
        kept_bytes: memory of these.
    """

    rows: int
    seconds: float
    kept_rows: int
    kept_bytes: int


def stream_file(
    model: nn.Module,
    path: str | Path,
    out: str | Path,
    rows_at_once: int | None = None,
    animation: bool = False,
) -> dict[str, Any]:
    """Segment an image row by row; or a video, whose frames are the next rows each.

    Rows and labels of the whole file are kept, to be written at its end; a
    :class:`StreamSegmentor` alone keeps none.

    Writes ``out/NAME_labels.png`` (one channel, the ids of the annotations),
    ``out/NAME_overlay.jpg`` and ``out/NAME_stream.json``, the numbers returned.

    Args:
        model: see :class:`StreamSegmentor`.
        path: image, or video of lines, such as a line camera's.
        out: folder.
        rows_at_once: rows of pixels that arrive together; a band by default.
        animation: write ``out/NAME_stream.gif``, the image while its rows arrive.

    Returns:
        ``band_rows``, ``median_seconds`` and ``slowest_seconds`` of a band, and
        ``bands``, a dict of :class:`Band` each.

    Raises:
        UserError: if the model looks ahead, or the file cannot be read or written.
    """
    if rows_at_once is not None and rows_at_once < 1:
        raise UserError('expected 1 or more', rows_at_once=rows_at_once)
    path, out = Path(path), Path(out)
    check_streams(model)
    check_writable(out)
    if is_video(path):
        height = _rows_of(path) if needs_height(cast(Any, model).backbone) else None
        segmentor = StreamSegmentor(model, height)
        pieces = _lines(path, rows_at_once)
    else:
        image = read_image(path, cast(Any, model).cfg.test_pipeline[0])
        image = image[..., None] if image.ndim == 2 else image
        height = len(image)
        segmentor = StreamSegmentor(model, height)
        step = rows_at_once or segmentor.band_rows
        pieces = (image[top : top + step] for top in range(0, height, step))
    rows, labels = [], []
    bands: list[Band] = []
    with tqdm(total=height, unit='row', desc=path.name) as progress:
        for piece in pieces:
            start = time.perf_counter()
            labels.append(segmentor.push(piece))
            _note(bands, segmentor, len(labels[-1]), start)
            rows.append(piece)
            progress.update(len(piece))
        start = time.perf_counter()
        labels.append(segmentor.finish())
        _note(bands, segmentor, len(labels[-1]), start)
    if not bands:
        raise UserError(f'{path} has no rows that can be decoded: is it damaged?')
    seconds = [band.seconds for band in bands]
    numbers = dict(
        file=path.name,
        band_rows=segmentor.band_rows,
        median_seconds=float(np.median(seconds)),
        slowest_seconds=max(seconds),
        bands=[vars(band) for band in bands],
    )
    image = np.concatenate(rows)
    found = np.concatenate(labels)
    if image.shape[2] != 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    _write(model, out / path.stem, image, found)
    if animation:
        palette = dataset_meta(model)['palette']
        target = out / f'{path.stem}_stream.gif'
        animate_stream(target, image, found, palette, bands)
    write_whole(out / f'{path.stem}_stream.json', json.dumps(numbers, indent=1))
    return numbers


def _note(
    bands: list[Band], segmentor: StreamSegmentor, given: int, start: float
) -> None:
    if given:
        seconds = time.perf_counter() - start
        kept = segmentor.kept_rows, segmentor.kept_bytes
        bands.append(Band(segmentor.rows, seconds, *kept))


def _rows_of(path: Path) -> int:
    """Count the rows of all frames of a video, by reading it."""
    reader = open_video(path)
    try:
        return sum(len(frame) for frame in video_frames(reader, path))
    finally:
        reader.release()


def _lines(path: Path, rows_at_once: int | None) -> Iterator[np.ndarray]:
    reader = open_video(path)
    try:
        for frame in video_frames(reader, path):
            step = rows_at_once or len(frame)
            yield from (frame[top : top + step] for top in range(0, len(frame), step))
    finally:
        reader.release()


def _write(model: nn.Module, stem: Path, image: np.ndarray, labels: np.ndarray) -> None:
    meta = dataset_meta(model)
    write_image(stem.with_name(f'{stem.name}_labels.png'), annotation_ids(meta)[labels])
    painted = overlay(image, labels, meta['palette'], 0.5)
    suffix = '.jpg' if max(painted.shape) <= JPEG_SIDE else '.png'
    write_image(stem.with_name(f'{stem.name}_overlay{suffix}'), painted)
