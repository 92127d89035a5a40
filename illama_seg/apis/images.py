"""Find, read and write images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from illama_seg.datasets.images import check_image
from illama_seg.errors import MissingFileError, UserError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


class UnwritableError(UserError):
    """A file of results that cannot be written; the next one cannot be either."""


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as (H, W, 3) uint8, BGR; converts grey, alpha and 16 bits.

    Raises:
        MissingFileError: if there is no such file.
        UserError: names a file that is no image, is damaged, or has too many pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f'no image {path}')
    check_image(path, is_known=True)
    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        if 'MAX_IMAGE' in str(error):
            raise UserError(
                f'{path} has more pixels or a longer side than OpenCV decodes: set '
                'the variables OPENCV_IO_MAX_IMAGE_PIXELS (2^29 if unset), _WIDTH and '
                '_HEIGHT of the environment'
            ) from error
        image = None
    if image is None:
        raise UserError(
            f'{path} ({data.size} bytes) is damaged or no image; formats read: '
            f'{", ".join(IMAGE_SUFFIXES)}'
        )
    return image


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
