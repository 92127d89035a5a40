"""Pair predicted label images with annotations by the names of their images."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from illama_seg.errors import MissingFileError

SHOWN = 8  # files named in a message
FilePair = tuple[Path, Path]  # prediction, annotation


def pair_files(
    predictions: Path,
    annotations: Path,
    partial: bool,
    *,
    img_suffix: str | Sequence[str],
    seg_map_suffix: str,
    names: Collection[str] | None,
) -> list[FilePair]:
    """Return prediction and annotation of each image, in the order of their names.

    Args: see :func:`illama_seg.evaluation.count_label_files`.

    Raises:
        MissingFileError: if a folder is missing or a file has no counterpart.
    """
    endings = (img_suffix,) if isinstance(img_suffix, str) else tuple(img_suffix)
    files = _files(predictions, '.png')
    expected = {
        _without(file, (seg_map_suffix,)): file
        for file in _files(annotations, seg_map_suffix)
    }
    if names is not None:
        if not partial:
            _check_listed(names, expected, annotations)
        expected = {name: expected[name] for name in names if name in expected}
    found = _by_image(files, endings, seg_map_suffix, expected)
    if names is not None:
        found = {name: file for name, file in found.items() if name in expected}
    both = sorted(found.keys() & expected.keys())
    if not partial or not both:
        _check_names(predictions, annotations, found, expected)
    return [(predictions / found[name], annotations / expected[name]) for name in both]


def _files(folder: Path, ending: str) -> list[str]:
    """Return the paths of the files with this ending, below the folder."""
    if not folder.is_dir():
        raise MissingFileError(f'no folder {folder}')
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.name.endswith(ending) and path.is_file()
    ]
    if not files:
        raise MissingFileError(
            f'no file in {folder} ends in {ending}: expected label images with one '
            'channel, such as those of a test run'
        )
    return sorted(files)


def _without(file: str, endings: Sequence[str]) -> str:
    ending = max((e for e in endings if file.endswith(e)), key=len, default='')
    return file[: len(file) - len(ending)]


def _check_listed(
    names: Collection[str], expected: Mapping[str, str], annotations: str | Path
) -> None:
    if absent := [name for name in names if name not in expected]:
        shown = ', '.join(absent[:SHOWN])
        raise MissingFileError(
            f'{len(absent)} of the {len(names)} images listed have no annotation in '
            f'{annotations}: {shown}{", ..." if len(absent) > SHOWN else ""}'
        )


def _by_image(
    files: Sequence[str],
    endings: Sequence[str],
    seg_map_suffix: str,
    expected: Collection[str],
) -> dict[str, str]:
    """Map the names of images without ending to the files of their predictions."""
    # A test run keeps the image's name but for what follows its last point.
    written = [f'x{ending}'.rpartition('.')[0][1:] + '.png' for ending in endings]
    found = {}
    for file in files:
        # Like the image, the annotation, or what both begin with.
        names = [_without(file, e) for e in (written, (seg_map_suffix,), ('.png',))]
        found[next((name for name in names if name in expected), names[0])] = file
    return found


def _check_names(
    predictions: Path,
    annotations: Path,
    found: Mapping[str, str],
    expected: Mapping[str, str],
) -> None:
    both = found.keys() & expected.keys()
    for files, here, there in (
        (expected, annotations, predictions),
        (found, predictions, annotations),
    ):
        names = sorted(files.keys() - both)
        if not names:
            continue
        shown = ', '.join(files[name] for name in names[:SHOWN])
        way_out = f'to count only the {len(both)} in both, set partial=True'
        if not both:
            other = next(iter((found if files is expected else expected).values()), '')
            way_out = (
                f'there the first is {other}. If images and annotations end '
                'differently, name a config with img_suffix and seg_map_suffix of its '
                'test data, or set both'
            )
        raise MissingFileError(
            f'{len(names)} images of {here} are not in {there}: {shown}'
            f'{", ..." if len(names) > SHOWN else ""}. Both folders need the same '
            f'names; {way_out}'
        )
