"""Open the source of a data set; unpack an archive safely."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from illama_seg.errors import MissingFileError, UserError

# Largest ratio of unpacked to packed size; images hardly shrink in an archive.
_MAX_RATIO, _ALWAYS = 100, 100 << 20


def open_source(source: str | Path, scratch: Path) -> Path:
    """Return a folder as it is, and an archive unpacked in ``scratch``.

    Raises:
        MissingFileError: if there is no such folder or file.
        UserError: see :func:`unpack`.
    """
    source, folder = Path(source), scratch / 'unpacked'
    if source.is_dir():
        return source
    if not source.is_file():
        raise MissingFileError(f'no folder or zip or .tar.gz {source}')
    unpack(source, folder)
    return folder


def find_root(folder: Path, names: Sequence[str]) -> Path:
    """Return the one folder, at any depth, that has all these folders inside.

    Raises:
        UserError: if there is none, or more than one.
    """
    found = [
        path
        for path in [folder, *sorted(folder.glob('*/**/'))]
        if all((path / name).is_dir() for name in names)
        and '__MACOSX' not in path.parts
    ]
    if len(found) != 1:
        raise UserError(
            f'{folder}: expected one folder with {", ".join(names)} inside, found '
            f'{", ".join(map(str, found)) or "none"}'
        )
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar.gz; nothing is written if a member would leave the folder.

    Raises:
        UserError: if the file is damaged or no archive, the disk is too small, or the
            archive is unsafe: a member leads out of the folder, is a link or a device,
            or the members have more than ``_MAX_RATIO`` times the archive's size.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise UserError(
                f'{archive} ({archive.stat().st_size:,} bytes) is no folder, .zip or '
                '.tar.gz, or was cut off: the end of a zip has its list of files'
            )
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        EOFError,
        NotImplementedError,  # zipfile's error for an unknown compression
        RuntimeError,  # zipfile's error for a password
    ) as error:
        raise UserError(
            f'{archive} is damaged or unsafe: {error}. Download or copy it again'
        ) from error


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            name = member.filename.replace('\\', '/')
            parts = PurePosixPath(name).parts
            if name.startswith('/') or '..' in parts or ':' in name.split('/')[0]:
                raise UserError(f'{archive} is unsafe: {name} leads out of it')
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(f'{archive} is unsafe: {name} is a link or a device')
        _check_tree(archive, {m.filename: m.is_dir() for m in members})
        _check_space(archive, folder, sum(member.file_size for member in members))
        for member in tqdm(members, 'unpacking', unit='file', disable=None):
            file.extract(member, folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            tarfile.data_filter(member, str(folder))  # raises where it leads out
            if member.name.startswith('/'):
                raise UserError(f'{archive} is unsafe: {member.name} leads out of it')
            if not (member.isfile() or member.isdir()):
                raise UserError(
                    f'{archive} is unsafe: {member.name} is a link or a device'
                )
        _check_tree(archive, {m.name: m.isdir() for m in members})
        _check_space(archive, folder, sum(member.size for member in members))
        for member in tqdm(members, 'unpacking', unit='file', disable=None):
            file.extract(member, folder, filter='data')


def _check_tree(archive: Path, is_folder: dict[str, bool]) -> None:
    """Refuse a file that is also the folder of another one."""
    paths = {PurePosixPath(name): found for name, found in is_folder.items()}
    files = {path for path, found in paths.items() if not found}
    if both := files & {parent for path in paths for parent in path.parents}:
        raise UserError(
            f'{archive} is damaged or unsafe: {min(both)} is a file in it and a folder'
        )


def _check_space(archive: Path, folder: Path, needed: int) -> None:
    size = archive.stat().st_size
    if needed > max(_MAX_RATIO * size, _ALWAYS):
        raise UserError(
            f'{archive} is unsafe: its {size:,} bytes unpack to {needed:,}, more than '
            f'{_MAX_RATIO} times as many, as if made to fill the disk. If you '
            'trust it, unpack it yourself and give the folder'
        )
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f'{archive} unpacks to {needed / 2**20:,.0f} MB, {folder.parent} has '
            f'{free / 2**20:,.0f} MB free: make room, or choose another disk'
        )
