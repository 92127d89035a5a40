"""Segment images and videos: write overlays, label images and a summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from torch import nn
from tqdm import tqdm

from illama_seg.apis.images import UnwritableError, read_image, write_image
from illama_seg.apis.models import annotation_ids, dataset_meta
from illama_seg.apis.prediction import check_windows, predict
from illama_seg.apis.user_errors import check_writable
from illama_seg.apis.video import CODECS, is_video, rewrite_video
from illama_seg.datasets.decoding import as_picture, loads_bgr
from illama_seg.datasets.values import narrow_warning
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.visualization.overlays import add_legend, legend, overlay

JPEG_SIDE = 65500  # pixels that OpenCV's encoder allows


def segment_files(
    model: nn.Module,
    images: Sequence[tuple[Path, Path]],
    *,
    out: str | Path,
    opacity: float = 0.5,
    full_size: bool = False,
    blend: str = 'mean',
    batch_size: int | None = None,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Segment images and videos and write the results; a bad one stops no other.

    Writes ``out/overlay/NAME.jpg`` (painted, with the names of the classes; ``.png``
    where a side is too long for JPEG), ``out/labels/NAME.png`` (one channel, the ids of
    the annotations) and ``out/summary.json``. For a video it writes
    ``out/overlay/NAME.mp4`` and its legend, ``NAME.png``.

    Args:
        model: from :func:`illama_seg.apis.load_segmentor`.
        images: path and name of each, from :func:`illama_seg.apis.find_images`; videos
            by :data:`VIDEO_SUFFIXES`.
        out: folder to write to; or, for one video, the file to write, alone.
        opacity: opacity of the paint, in [0, 1].
        full_size, blend, batch_size: see :func:`illama_seg.apis.predict`.

    Returns:
        Share of each class in each segmented image or video, and a message for each
        other one.

    Raises:
        UserError: if an argument does not fit, or the folder cannot be written.
    """
    if not 0 <= opacity <= 1:
        raise UserError('expected a number in [0, 1]', opacity=opacity)
    check_windows(model, full_size, blend, batch_size)
    out, only = Path(out), None
    if is_video(out) and not out.is_dir():
        out, only = _checked_file(out, images), out
    painter = _Painter(model, opacity, (full_size, blend, batch_size))
    summary: dict[str, dict[str, float]] = {}
    failures = []
    for path, name in tqdm(images, unit='file', disable=len(images) == 1):
        try:
            if is_video(path):
                target = only or out / 'overlay' / name.with_suffix('.mp4')
                shares = painter.paint_video(path, target, with_legend=only is None)
            else:
                shares = painter.paint_image(path, name, out)
        except UnwritableError:
            raise
        except (UserError, OSError) as error:
            named = str(path) in str(error)
            failures.append(str(error) if named else f'{path}: {error}')
            continue
        summary[str(name)] = shares
    if summary and only is None:
        write_whole(out / 'summary.json', json.dumps(summary, indent=1))
    return summary, failures


def _checked_file(out: Path, images: Sequence[tuple[Path, Path]]) -> Path:
    """Return the folder of a single video to write.

    Raises:
        UserError: if it cannot be written, or something else is to be segmented.
    """
    if out.suffix.lower() not in CODECS:
        endings = ' or '.join(CODECS)
        raise UserError(f'expected a folder, or a file in {endings}', out=str(out))
    if len(images) != 1 or not is_video(images[0][0]):
        raise UserError(
            f'a file takes one video, but {len(images)} files are to be segmented: '
            'name a folder',
            out=str(out),
        )
    check_writable(out.parent)
    return out.parent


class _Painter:
    """Paints what a model predicts, and counts its pixels."""

    def __init__(self, model: nn.Module, opacity: float, windows: tuple) -> None:
        self.model, self.opacity, self.windows = model, opacity, windows
        meta = dataset_meta(model)
        self.classes, self.palette = meta['classes'], meta['palette']
        self.ids = annotation_ids(meta)
        self.loader = cast(Any, model).cfg.test_pipeline[0]
        self.is_bgr = loads_bgr(TRANSFORMS.build(self.loader))

    def paint_image(self, path: Path, name: Path, out: Path) -> dict[str, float]:
        """Write an image's overlay and labels; return the share of each class."""
        image = read_image(path, self.loader)
        labels = predict(self.model, image, *self.windows)
        if text := narrow_warning(path, image):
            print_log(text, logger='current', level=30)
        write_image(out / 'labels' / name.with_suffix('.png'), self.ids[labels])
        image = as_picture(image, self.is_bgr)
        counts = self._paint(image, labels)
        image = add_legend(image, labels, self.classes, self.palette)
        suffix = '.jpg' if max(image.shape) <= JPEG_SIDE else '.png'
        write_image(out / 'overlay' / name.with_suffix(suffix), image)
        return self._shares(counts)

    def paint_video(
        self, path: Path, target: Path, with_legend: bool
    ) -> dict[str, float]:
        """Write a painted video; return the share of each class in all frames."""
        counts = np.zeros(len(self.classes), np.int64)

        def painted(frame: np.ndarray) -> np.ndarray:
            labels = predict(self.model, self._as_loaded(frame), *self.windows)
            counts[:] += self._paint(frame, labels)
            return frame

        facts = rewrite_video(path, target, painted)
        if with_legend:
            shown = np.argsort(-counts)[: np.count_nonzero(counts)]
            strip = legend(facts.size[1], shown, self.classes, self.palette)
            write_image(target.with_suffix('.png'), strip)
        print_log(f'{target}: {facts}', logger='current')
        return self._shares(counts)

    def _as_loaded(self, frame: np.ndarray) -> np.ndarray:
        """Return a frame of a video, (H, W, 3) BGR, as the model's loader would."""
        if self.loader.get('color_type') == 'grayscale':
            return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        return frame if self.is_bgr else np.ascontiguousarray(frame[..., ::-1])

    def _paint(self, image: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Paint an image in place; return the number of pixels of each class."""
        counts = np.zeros(len(self.classes), np.int64)
        for top in range(0, len(image), 512):  # keeps one large image in memory
            rows = slice(top, top + 512)
            counts += np.bincount(labels[rows].ravel(), minlength=len(counts))
            image[rows] = overlay(image[rows], labels[rows], self.palette, self.opacity)
        return counts

    def _shares(self, counts: np.ndarray) -> dict[str, float]:
        shares = counts / counts.sum()
        return {
            self.classes[number]: round(float(shares[number]), 4)
            for number in np.argsort(-shares)
            if shares[number] > 0
        }
