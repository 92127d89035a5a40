"""Lists of samples: the ``ann_file`` of mmseg's segmentation data sets."""

from __future__ import annotations

import os.path as osp
from dataclasses import dataclass

from mmengine.fileio import get, isfile
from mmseg.datasets import BaseSegDataset

from illama_seg.errors import MissingFileError, UserError

_SHOWN = 5  # lines named in a message


@dataclass(frozen=True)
class Listed:
    """Sample that a line of a list names.

    Attributes:
        line: number of the line, from 1.
        name: name below both folders, without suffix.
        image: path of the image.
        annotation: path of the annotation, None where the data set has none.
    """

    line: int
    name: str
    image: str
    annotation: str | None


def how_to_get(dataset: BaseSegDataset) -> str:
    """Return the data set's expected layout and source, if it knows them."""
    text = getattr(dataset, 'HOW_TO_GET', '')
    return f'\n\n{text}' if text else ''


def has_list(dataset: BaseSegDataset) -> bool:
    """Tell a list from a folder, which mmseg takes for no list."""
    return bool(dataset.ann_file) and not osp.isdir(dataset.ann_file)


def read_lines(dataset: BaseSegDataset) -> list[str]:
    """Return the lines of a data set's ``ann_file`` without spaces around them.

    Takes any ends of lines, and a byte order mark.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is no text, or names nothing.
    """
    path = dataset.ann_file
    try:
        text = get(path, backend_args=dataset.backend_args).decode('utf-8-sig')
    except FileNotFoundError as error:
        raise MissingFileError(
            'no such list: expected a text file with the name of an image in each '
            'line, below data_prefix.img_path and without img_suffix'
            f'{how_to_get(dataset)}',
            ann_file=path,
        ) from error
    except UnicodeDecodeError as error:
        text = f'is no text in UTF-8 (byte {error.start}): save it in this encoding'
        raise UserError(text, ann_file=path) from error
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise UserError('names no image: expected one in each line', ann_file=path)
    return lines


def listed_pairs(dataset: BaseSegDataset) -> list[Listed]:
    """Return the samples of a data set's ``ann_file`` in its order, as mmseg does.

    Skips blank lines. A name may have the suffix of its image, and may be absolute; the
    annotation of an absolute name below the images' folder is in the annotations'
    folder. Files are not looked for, except among several ``img_suffix``.

    Raises:
        MissingFileError, UserError: as :func:`read_lines`.
    """
    img_dir = dataset.data_prefix.get('img_path') or ''
    ann_dir = dataset.data_prefix.get('seg_map_path')
    suffixes = dataset.img_suffix
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    samples = []
    for number, name in enumerate(read_lines(dataset), 1):
        if not name:
            continue
        if osp.isabs(name):
            below = osp.relpath(name, img_dir or '.')
            name = name if below.startswith('..') else below
        ending = max((s for s in suffixes if name.endswith(s)), key=len, default='')
        name = name[: len(name) - len(ending)]
        paths = [osp.join(img_dir, name + suffix) for suffix in suffixes]
        if ending:
            paths.insert(0, osp.join(img_dir, name + ending))
        image = paths[0]
        if len(paths) > 1:
            image = next((path for path in paths if _is_there(dataset, path)), image)
        annotation = None
        if ann_dir:
            annotation = osp.join(ann_dir, name + dataset.seg_map_suffix)
        samples.append(Listed(number, name, image, annotation))
    return samples


def listed_names(dataset: BaseSegDataset) -> list[str]:
    """Return the different names of :func:`listed_pairs`, below the data's folders."""
    return list(dict.fromkeys(sample.name for sample in listed_pairs(dataset)))


def missing_files(
    dataset: BaseSegDataset, samples: list[Listed]
) -> tuple[list[Listed], list[Listed]]:
    """Return the samples without an image, and the others without an annotation."""
    lost, bare = [], []
    for sample in samples:
        if not _is_there(dataset, sample.image):
            lost.append(sample)
        elif sample.annotation and not _is_there(dataset, sample.annotation):
            bare.append(sample)
    return lost, bare


def check_listed(dataset: BaseSegDataset, samples: list[Listed]) -> None:
    """Refuse a list that names files which are not there.

    Raises:
        MissingFileError: names the first lines and their files.
    """
    lost, bare = missing_files(dataset, samples)
    faults = [f'line {sample.line}: no image {sample.image}' for sample in lost]
    faults += [f'line {s.line}: no annotation {s.annotation}' for s in bare]
    if not faults:
        return
    more = f'\n  and {len(faults) - _SHOWN} more' if len(faults) > _SHOWN else ''
    raise MissingFileError(
        f'{len(faults)} of {len(samples)} samples have no file:\n  '
        + '\n  '.join(faults[:_SHOWN])
        + f'{more}\nNames are below data_prefix.img_path and end before img_suffix '
        'and seg_map_suffix: add the files, or remove the lines'
        f'{how_to_get(dataset)}',
        ann_file=dataset.ann_file,
    )


def _is_there(dataset: BaseSegDataset, path: str) -> bool:
    return isfile(path, backend_args=dataset.backend_args)
