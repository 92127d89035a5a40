"""Decode every image and annotation of a data set in several processes."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from mmengine.fileio import get
from mmengine.registry import TRANSFORMS
from mmseg.datasets import BaseSegDataset
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from illama_seg.datasets.annotations import IGNORED, wrong_size_message
from illama_seg.datasets.images import check_image
from illama_seg.datasets.values import ImageValues, SplitValues, measure_values
from illama_seg.errors import UserError

Pair = tuple[str, str | None]
_NUMBERS = ('L', 'P', '1', 'I', 'I;16', 'I;16B')  # modes of one integer a pixel
_PLAIN = ('JPEG', 'PNG', 'BMP', 'WEBP')  # formats that decoders agree on
_COLOURS = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK')
_FEW = 64
_ORIENTATION = 0x112  # in EXIF; 5 to 8 are rotated by 90 degrees
TURNED = (
    'its EXIF orientation turns or mirrors it in viewers, and in LoadImageFromFile '
    'unless color_type ignores it; annotations are never turned. Look at the contact '
    'sheet (check_dataset); if the labels are not on their things, write the image '
    'anew without EXIF'
)


@dataclass
class Facts:
    """Content of an image and its annotation.

    Attributes:
        image: path of the image.
        annotation: path of the annotation.
        size: (height, width) of the image as loaded.
        values: its values as loaded.
        orientation: by EXIF, 1 for an image that is not turned.
        shape: shape of the annotation as an array.
        labels: label in the file -> number of its pixels.
        digest: checksum of the image file.
        faults: (kind, message) of each error.
    """

    image: str
    annotation: str | None
    size: tuple[int, ...] | None = None
    values: ImageValues | None = None
    orientation: int = 1
    shape: tuple[int, ...] | None = None
    labels: dict[int, int] = field(default_factory=dict)
    digest: str = ''
    faults: list[tuple[str, str]] = field(default_factory=list)


def inspect_pair(
    pair: Pair, backend_args: dict | None = None, loader: Any = None
) -> Facts:
    """Decode an image and its annotation completely, and count the labels.

    Args:
        pair: paths of the image and of its annotation.
        backend_args: storage backend of the data set.
        loader: transform that loads the image; by default ``LoadImageFromFile``.
    """
    facts = Facts(*pair)
    _read_image(facts, backend_args, loader)
    if facts.annotation is not None:
        _read_labels(facts, facts.annotation, backend_args)
    if facts.size and facts.shape and facts.size != facts.shape:
        path = str(facts.annotation)
        message = wrong_size_message(path, facts.shape, facts.image, facts.size)
        facts.faults.append(('size mismatch', message))
    return facts


def inspect_pairs(
    pairs: Sequence[Pair],
    title: str,
    workers: int | None = None,
    backend_args: dict | None = None,
    loader: Any = None,
) -> Iterator[Facts]:
    """Yield the facts of each pair, in order, with a progress bar.

    Args:
        pairs: paths of each image and of its annotation, None where there is none.
        title: text before the progress bar.
        workers: processes; by default as many as there are cores.
        backend_args: storage backend of the data set.
        loader: see :func:`inspect_pair`.

    Raises:
        UserError: if ``workers`` is less than 1.
    """
    if workers is not None and workers < 1:
        raise UserError('expected at least 1', workers=workers)
    work = partial(inspect_pair, backend_args=backend_args, loader=loader)
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


def _read_image(facts: Facts, backend_args: dict | None, loader: Any) -> None:
    loader = loader or TRANSFORMS.build(dict(type='LoadImageFromFile'))
    try:
        data = get(facts.image, backend_args)
        facts.digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        check_image(facts.image, data)
        image = _by_pillow(facts, data, loader)
        if image is None or image.min() == image.max():  # a small one misses details
            image = loader(dict(img_path=facts.image))['img']
        facts.size = facts.size or image.shape[:2]
        facts.values = measure_values(facts.image, image, data)
    except Exception as error:  # every decoder has errors of its own
        facts.size = None
        facts.faults.append(('image unreadable', _unreadable(facts.image, error)))


def _by_pillow(facts: Facts, data: bytes, loader: Any) -> np.ndarray | None:
    """Read all of a file, which OpenCV may not; return the image where it suffices.

    A small version of a JPEG takes a fraction of the time, but all of its stream is
    read.
    """
    try:
        file = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:  # its loader may know it
        return None
    with file:
        width, height = file.size
        facts.orientation = file.getexif().get(_ORIENTATION) or 1
        is_plain = file.format in _PLAIN and _is_default(loader)
        if is_plain:
            file.draft(None, (max(width // 8, 1), max(height // 8, 1)))
        if file.format == 'TIFF':  # Pillow knows fewer of them than others
            return None
        file.load()
        if not is_plain or file.mode not in _COLOURS:
            return None
        if file.format == 'PNG' and data[24] > 8:
            return None
        # OpenCV applies the orientation, so the annotation has to fit the result.
        turned = facts.orientation in (5, 6, 7, 8)
        facts.size = (width, height) if turned else (height, width)
        return np.asarray(file.convert('RGB'))[..., ::-1]


def is_turned(data: bytes) -> bool:
    """Return whether the EXIF data of an image file turns or mirrors it."""
    try:
        with Image.open(io.BytesIO(data)) as file:
            return (file.getexif().get(_ORIENTATION) or 1) != 1
    except Exception:  # no format of Pillow's, or damaged
        return False


def _is_default(loader: Any) -> bool:
    wanted = dict(imdecode_backend='cv2', color_type='color', to_float32=False)
    return type(loader).__name__ == 'LoadImageFromFile' and all(
        getattr(loader, key) == value for key, value in wanted.items()
    )


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
            f'{path}: the annotation is a colour image ({mode}, {labels.shape}); '
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
    elif isinstance(error, UserError) and path in str(error):
        return str(error)
    else:
        reason = str(error) or type(error).__name__
    return (
        f'{path} cannot be read: {reason}. Expected a whole image; copy or download it '
        'again, or remove it with its partner'
    )


@dataclass
class CheckedSplit:
    """Statistics of one split of the data.

    Attributes:
        name: 'train' or 'val'.
        classes: names of the classes.
        reduce_zero_label: label 0 in the files is ignored, 1 is the first class.
        num_labels: number of labels that are classes in the files.
        labels: label in the files -> number of its pixels.
        pixels: class number for the model, or 255 (ignored) -> number of its pixels.
        images: class number -> number of images that have it.
        sizes: (height, width) -> number of images.
        wrong: labels that no class has.
        values: values of the images as loaded.
        turned: images whose EXIF turns or mirrors them, which their size does not show.
        sound: (data set, sample before its pipeline) of each pair without an error.
    """

    name: str
    classes: Sequence[str]
    reduce_zero_label: bool
    num_labels: int
    labels: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    sizes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    wrong: set[int] = field(default_factory=set)
    values: SplitValues = field(default_factory=SplitValues)
    turned: list[str] = field(default_factory=list)
    sound: list[tuple[BaseSegDataset, dict]] = field(default_factory=list)

    def summary(self) -> dict:
        """Return the numbers for a JSON file; shares are of all pixels, 0 to 1."""
        total = max(sum(self.pixels.values()), 1)
        area = sorted(self.sizes, key=np.prod)
        return dict(
            images=sum(self.sizes.values()),
            smallest=area[0] if area else None,
            largest=area[-1] if area else None,
            ignored=self.pixels[IGNORED] / total,
            values=self.values.summary(),
            classes={
                name: dict(share=self.pixels[n] / total, images=self.images[n])
                for n, name in enumerate(self.classes)
            },
            labels={str(n): self.labels[n] for n in sorted(self.labels)},
        )
