"""Find, read and write images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from mmengine.registry import TRANSFORMS

from illama_seg.errors import MissingFileError, UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


class UnwritableError(UserError):
    """A file of results that cannot be written; the next one cannot be either."""


def read_image(path: str | Path, loader: Mapping | None = None) -> np.ndarray:
    """Read an image as the first step of a config's pipeline does.

    Args:
        path: path of the image.
        loader: config of this step, such as ``model.cfg.test_pipeline[0]``; by default
            mmcv's ``LoadImageFromFile``, which makes three channels of 8 bits of any
            image.

    Returns:
        (H, W, 3) uint8, BGR, by default; (H, W) or (H, W, bands) of any type by others.

    Raises:
        MissingFileError: if there is no such file.
        UserError: names a file that is no image, is damaged, has too many pixels, or
            more bands than the loader reads.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'no image {path}')
    load = TRANSFORMS.build(dict(loader or dict(type='LoadImageFromFile')))
    return load(dict(img_path=str(path)))['img']


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W) or BGR (H, W, 3) uint8, in the format of the suffix.

    Raises:
        UnwritableError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    except OSError as error:
        raise UnwritableError(
            f'{path} cannot be written ({error.strerror}): name another folder'
        ) from error


def find_images(
    inputs: Iterable[str | Path],
    skip: str | Path | None = None,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
) -> list[tuple[Path, Path]]:
    """List the images among files and in folders.

    Args:
        inputs: files and folders, searched with their subfolders.
        skip: folder of results; its ``overlay`` and ``labels`` are not searched.
        suffixes: endings of the files to list in folders, in lower case.

    Returns:
        (path, name) of each image: the name is its path below the given folder.

    Raises:
        MissingFileError: if an input does not exist.
        UserError: if a folder has no image, or two images have the same name.
    """
    found = []
    skipped = (
        {Path(skip, name).resolve() for name in ('overlay', 'labels')}
        if skip
        else set()
    )
    for entry in map(Path, inputs):
        if entry.is_dir():
            files = sorted(
                file
                for file in entry.rglob('*')
                if file.suffix.lower() in suffixes
                and skipped.isdisjoint(file.resolve().parents)
            )
            if not files:
                raise UserError(
                    f'no image in folder {entry}: expected files ending in '
                    f'{", ".join(suffixes)}'
                )
            found += [(file, file.relative_to(entry)) for file in files]
        elif entry.is_file():
            found.append((entry, Path(entry.name)))
        else:
            raise MissingFileError(f'no image or folder {entry}')
    names: dict[Path, Path] = {}
    for path, name in found:
        other = names.setdefault(name.with_suffix(''), path)
        if other != path:
            raise UserError(
                f'{other} and {path} would both be written as {name.stem}: segment '
                'them into different folders'
            )
    return found
