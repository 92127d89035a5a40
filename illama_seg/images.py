"""Find, read and write image files, by OpenCV alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import atomic

JPEG_SIDE = 65500  # pixels that OpenCV's encoder allows
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


class UnwritableError(UserError):
    """A file of results that cannot be written; the next one cannot be either."""


def read_bgr(path: str | Path) -> np.ndarray:
    """Read an image file, (H, W, 3) uint8 BGR.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if it is no image, or a damaged one.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'no image {path}')
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error as error:
        raise UserError(f'{path} cannot be read: {error.err}') from error
    if image is None:
        raise UserError(f'{path} is no image, or a damaged one: replace it')
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, (H, W) or BGR (H, W, 3) uint8, whole or not at all.

    The format is that of the suffix.

    Raises:
        UnwritableError: if the file cannot be written.
    """
    try:
        with atomic(path) as part:
            part.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
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
