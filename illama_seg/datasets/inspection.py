"""Look at every image and annotation of a data set, by many processes."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from mmengine.fileio import get
from PIL import Image, UnidentifiedImageError
from prettytable import PrettyTable
from tqdm import tqdm

from illama_seg.datasets.annotations import say_wrong_size
from illama_seg.datasets.images import check_image
from illama_seg.errors import UserError

Pair = tuple[str, str | None]
_NUMBERS = ('L', 'P', '1', 'I', 'I;16', 'I;16B')  # modes of one whole number a pixel
_FEW = 64
_ORIENTATION = 0x112  # in EXIF; 5 to 8 lie on their side
_SHOWN = 3


@dataclass
class Facts:
    """What is in an image and its annotation.

    ``size`` and ``shape`` are (height, width) and that of the annotation as an array;
    ``labels`` counts the pixels of each label as it is in the file; ``digest`` is of
    the image file. ``faults`` has a kind and a message of each.
    """

    image: str
    annotation: str | None
    size: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    labels: dict[int, int] = field(default_factory=dict)
    digest: str = ''
    faults: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Finding:
    """What is wrong with a data set: one kind of fault, and all files that have it.

    Attributes:
        kind: a few words.
        split: where it was found.
        messages: a sentence or two on each file; on the data set where it has no files.
        files: paths of the files at fault.
        level: 'fault', or 'warning' where it may be meant so.
    """

    kind: str
    split: str
    messages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    level: str = 'fault'

    def __str__(self) -> str:
        """The first messages, and how many more there are."""
        many = f' ({len(self.messages):,} times)' if len(self.messages) > 1 else ''
        lines = [f'{self.level}: {self.split}: {self.kind}{many}']
        lines += [f'  {message}' for message in self.messages[:_SHOWN]]
        if len(self.messages) > _SHOWN:
            lines.append(f'  ... and {len(self.messages) - _SHOWN:,} more')
        return '\n'.join(lines)


class Findings:
    """Findings of several splits, grouped by their kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(
        self, split: str, kind: str, message: str, file: str = '', level: str = 'fault'
    ) -> None:
        """Note one more."""
        fresh = Finding(kind, split, level=level)
        finding = self._found.setdefault((split, kind), fresh)
        finding.messages.append(message)
        if file:
            finding.files.append(file)

    def sorted(self) -> list[Finding]:
        """Faults first, then warnings, in the order of their discovery."""
        return sorted(self._found.values(), key=lambda found: found.level != 'fault')


def class_table(
    classes: Iterable[str], splits: Mapping[str, Mapping[str, tuple[float, int]]]
) -> str:
    """Share of the pixels, 0 to 1, and images of each class in each split."""
    names = list(classes)
    table = PrettyTable()
    table.add_column('class', [name.strip() for name in names], align='l')
    for split, found in splits.items():
        rows = [found.get(name, (0.0, 0)) for name in names]
        shares = [f'{100 * share:.3f}' for share, _ in rows]
        table.add_column(f'{split} %', shares, align='r')
        table.add_column(f'{split} images', [images for _, images in rows], align='r')
    return table.get_string()


def inspect_pair(pair: Pair, backend_args: dict | None = None) -> Facts:
    """Decode an image and its annotation, all of them, and count the labels."""
    facts = Facts(*pair)
    _read_image(facts, backend_args)
    if facts.annotation is not None:
        _read_labels(facts, facts.annotation, backend_args)
    if facts.size and facts.shape and facts.size != facts.shape:
        path = str(facts.annotation)
        message = say_wrong_size(path, facts.shape, facts.image, facts.size)
        facts.faults.append(('size mismatch', message))
    return facts


def inspect_pairs(
    pairs: Sequence[Pair],
    title: str,
    workers: int | None = None,
    backend_args: dict | None = None,
) -> Iterator[Facts]:
    """Facts of each pair, in their order, with a progress bar.

    Args:
        pairs: paths of each image and of its annotation, None where there is none.
        title: what stands before the progress bar.
        workers: processes; by default as many as there are cores.
        backend_args: of the data set's storage.

    Raises:
        ValueError: if ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise UserError(f'--workers {workers}: expected at least 1')
    work = partial(inspect_pair, backend_args=backend_args)
    bar = partial(tqdm, desc=title, total=len(pairs), unit='image', disable=None)
    workers = min(workers or _cores(), -(-len(pairs) // _FEW))
    if workers <= 1:
        yield from bar(map(work, pairs))
        return
    # Other ways of starting a process import everything anew in each.
    fork = 'fork' in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('fork' if fork else None)
    with ProcessPoolExecutor(workers, context) as pool:
        yield from bar(pool.map(work, pairs, chunksize=16))


def _cores() -> int:
    known = hasattr(os, 'sched_getaffinity')
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _read_image(facts: Facts, backend_args: dict | None) -> None:
    try:
        data = get(facts.image, backend_args)
        facts.digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        check_image(facts.image, data)
        with Image.open(io.BytesIO(data)) as file:
            width, height = file.size
            # OpenCV turns it as the camera was held; the annotation has to fit that.
            turned = file.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            facts.size = (width, height) if turned else (height, width)
            # A small version of a JPEG takes a fraction of the time, and its whole
            # stream is read all the same.
            file.draft(None, (max(width // 8, 1), max(height // 8, 1)))
            file.load()
    except Exception as error:  # every decoder has errors of its own
        facts.size = None
        facts.faults.append(('image unreadable', _unreadable(facts.image, error)))


def _read_labels(facts: Facts, path: str, backend_args: dict | None) -> None:
    try:
        data = get(path, backend_args)
        check_image(path, data)
        with Image.open(io.BytesIO(data)) as file:
            kind, mode, labels = file.format, file.mode, np.asarray(file)
    except Exception as error:
        facts.faults.append(('annotation unreadable', _unreadable(path, error)))
        return
    if mode not in _NUMBERS:
        message = (
            f'{path}: the annotation is a colour picture ({mode}, {labels.shape}); '
            'expected one class number for each pixel (a PNG of mode L or P). Turn its '
            'colours into numbers'
        )
        facts.faults.append(('not class numbers', message))
        return
    if kind == 'JPEG':
        message = (
            f'{path} is a JPEG, whatever its name: its compression changes numbers at '
            'the borders of classes. Expected a PNG; make it anew from the source'
        )
        facts.faults.append(('lossy annotation', message))
    facts.shape = labels.shape
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.dtype == np.uint8:  # several times faster than sorting
        counts = np.bincount(labels.ravel(), minlength=256)
        facts.labels = {int(n): int(counts[n]) for n in np.flatnonzero(counts)}
    else:
        values, counts = np.unique(labels, return_counts=True)
        facts.labels = dict(zip(values.tolist(), counts.tolist(), strict=True))


def _unreadable(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        reason = 'there is no such file'
    elif isinstance(error, UnidentifiedImageError):
        reason = 'it is no image'
    elif str(error).startswith(path):  # ours
        return str(error)
    else:
        reason = str(error) or type(error).__name__
    return (
        f'{path} cannot be read: {reason}. Expected a whole image; copy or download it '
        'again, or remove it with its partner'
    )
