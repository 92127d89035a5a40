"""Segment images and videos: write overlays, label images and a summary."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from torch import distributed as dist, nn
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
from illama_seg.images import JPEG_SIDE
from illama_seg.visualization.overlays import add_legend, legend, overlay


def segment_files(
    model: nn.Module,
    images: Sequence[tuple[Path, Path]],
    *,
    out: str | Path,
    opacity: float = 0.5,
    full_size: bool = False,
    blend: str = 'mean',
    batch_size: int | None = None,
    resume: bool = False,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Segment images and videos and write the results; a bad one stops no other.

    Writes ``out/overlay/NAME.jpg`` (painted, with the names of the classes; ``.png``
    where a side is too long for JPEG), ``out/labels/NAME.png`` (one channel, the ids of
    the annotations) and ``out/summary.json``. For a video it writes
    ``out/overlay/NAME.mp4`` and its legend, ``NAME.png``. A file is whole or not there.

    The next image is read and the last one written while one is segmented. Processes
    of a launcher share the images and write the same files as one process.

    Args:
        model: from :func:`illama_seg.apis.load_segmentor`.
        images: path and name of each, from :func:`illama_seg.apis.find_images`; videos
            by :data:`VIDEO_SUFFIXES`.
        out: folder to write to; or, for one video, the file to write, alone.
        opacity: opacity of the paint, in [0, 1].
        full_size, blend, batch_size: see :func:`illama_seg.apis.predict`.
        resume: keep the results of images that ``out`` has already, whatever they were
            made with.

    Returns:
        Share of each class in each segmented image or video, and a message for each
        other one: of all processes in the first, none in the others.

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
    rank, processes = get_rank(), get_world_size()
    found: dict[str, dict[str, float]] = {}
    failures: list[str] = []
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        waiting: deque[tuple[Path, Path, Future]] = deque()

        def note(path: Path, name: Path, result: Callable) -> None:
            try:
                found[str(name)] = result()
            except UnwritableError:
                raise
            except (UserError, OSError) as error:
                named = str(path) in str(error)
                failures.append(str(error) if named else f'{path}: {error}')

        def finish(most: int) -> None:
            """Wait until at most so many images are not written."""
            while len(waiting) > most:
                path, name, future = waiting.popleft()
                note(path, name, future.result)

        def read(item: tuple[Path, Path]) -> tuple[np.ndarray, str] | None:
            path, name = item
            if is_video(path) or (resume and painter.is_done(name, out)):
                return None
            return painter.read(path)

        own = images[rank::processes]
        disable = len(own) == 1 or rank > 0
        with tqdm(total=len(own), unit='file', disable=disable) as bar:
            for (path, name), image in _read_ahead(reader, read, own):
                if is_video(path):  # which computes frame by frame
                    finish(0)
                    target = only or out / 'overlay' / name.with_suffix('.mp4')
                    note(
                        path, name, partial(painter.paint_video, path, target, not only)
                    )
                    bar.update()
                    continue
                job = _segmented(painter, image, name, out)
                waiting.append((path, name, writer.submit(job)))
                finish(2)
                bar.update()
        finish(0)
    if processes > 1:
        parts = _gathered((found, failures), rank, processes)
        found = {name: shares for part, _ in parts for name, shares in part.items()}
        failures = [text for _, part in parts for text in part]
    summary = {str(name): found[str(name)] for _, name in images if str(name) in found}
    if summary and only is None and rank == 0:
        write_whole(out / 'summary.json', json.dumps(summary, indent=1))
    return summary, failures


def _gathered(own: Any, rank: int, processes: int) -> list[Any]:
    """Gather an object of every process in the first one, however late they end."""
    # NCCL cannot gather objects; other processes may have longer videos.
    group: Any = dist.new_group(backend='gloo', timeout=timedelta(days=7))
    parts: list[Any] = [None] * processes
    dist.gather_object(own, parts if rank == 0 else None, group=group)
    return parts if rank == 0 else []


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable, items: Iterable
) -> Iterator[tuple[Any, Future]]:
    """Yield items, each with what was read of it; the next one is being read."""
    before = None
    for item in items:
        after = item, pool.submit(read, item)
        if before is not None:
            yield before
        before = after
    if before is not None:
        yield before


def _segmented(
    painter: _Painter, image: Future, name: Path, out: Path
) -> Callable[[], dict[str, float]]:
    """Segment an image that was read; return the function that writes the results.

    Of an image whose results are kept nothing was read; they are counted again.
    """
    try:
        loaded = image.result()
        if loaded is None:
            return partial(painter.shares_of, name, out)
        array, warning = loaded
        labels = painter.segment(array)
    except (UserError, OSError) as error:
        failure = error

        def fail() -> dict[str, float]:
            raise failure

        return fail
    if warning:
        print_log(warning, logger='current', level=30)
    return partial(painter.paint_image, array, labels, name, out)


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

    def read(self, path: Path) -> tuple[np.ndarray, str]:
        """Read an image; return it with a warning, or ''."""
        image = read_image(path, self.loader)
        return image, narrow_warning(path, image) or ''

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Return the class numbers of an image."""
        return predict(self.model, image, *self.windows)

    def paint_image(
        self, image: np.ndarray, labels: np.ndarray, name: Path, out: Path
    ) -> dict[str, float]:
        """Write an image's overlay and labels; return the share of each class."""
        image = as_picture(image, self.is_bgr)
        counts = self._paint(image, labels)
        image = add_legend(image, labels, self.classes, self.palette)
        suffix = '.jpg' if max(image.shape) <= JPEG_SIDE else '.png'
        write_image(out / 'overlay' / name.with_suffix(suffix), image)
        # The last one: an image that has labels is done.
        write_image(out / 'labels' / name.with_suffix('.png'), self.ids[labels])
        return self._shares(counts)

    def is_done(self, name: Path, out: Path) -> bool:
        """Return whether the results of an image are there."""
        return (out / 'labels' / name.with_suffix('.png')).is_file()

    def shares_of(self, name: Path, out: Path) -> dict[str, float]:
        """Return the share of each class in labels that were written before."""
        path = out / 'labels' / name.with_suffix('.png')
        found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if found is None:
            raise UserError(f'{path} is damaged: delete it')
        counts = np.bincount(found.ravel(), minlength=256)
        return self._shares(counts[self.ids])

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
