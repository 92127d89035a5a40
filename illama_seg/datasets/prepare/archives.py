"""Download an archive, in as many attempts as it takes, and unpack it safely."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from mmengine.logging import print_log
from tqdm import tqdm

from illama_seg.errors import UserError

_BLOCK = 1 << 20
_WAIT = 2.0  # seconds before the second attempt; each later one waits twice as long
# An archive may unpack to so many times its size; pictures hardly shrink in one.
_MAX_RATIO, _ALWAYS = 100, 100 << 20


def download(url: str, target: Path, md5: str, attempts: int = 3) -> None:
    """Download a file; a download that broke off goes on where it stopped.

    What has come so far is in ``target`` + '.part', also for the next run.

    Args:
        url: http(s) URL.
        target: file to make.
        md5: that the file must have.
        attempts: attempts in a row that may bring nothing.

    Raises:
        ConnectionError: if the rest does not come; what has come is kept.
        ValueError: if the file is another one; nothing is kept.
    """
    part = target.with_name(target.name + '.part')
    failed = 0
    while True:
        had = _size(part)
        try:
            if _fetch_rest(url, part):
                break
            error: Exception = ConnectionError('the connection broke off')
        except (OSError, http.client.HTTPException) as caught:
            error = caught
        failed = 1 if _size(part) > had else failed + 1
        code = getattr(error, 'code', 500)  # of an answer, if there was one
        refused = code < 500 and code not in (408, 429)
        if failed >= attempts or refused:
            raise ConnectionError(
                f'could not download {url}: {error}'
                + (
                    f'\n{_size(part):,} bytes are kept in {part}: run the same command '
                    'again to go on'
                    if part.is_file()
                    else ''
                )
            ) from error
        print_log(f'{url}: {error}; going on', 'current', logging.WARNING)
        time.sleep(_WAIT * 2 ** (failed - 1))
    found = md5_of(part)
    if found != md5:
        size = _size(part)
        part.unlink()
        raise UserError(
            f'{url}: {size:,} bytes with the MD5 {found}, expected {md5}; nothing was '
            'kept. Run the same command again, or get the file elsewhere'
        )
    os.replace(part, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_rest(url: str, part: Path) -> bool:
    """Add what is lacking to a file; whether it is whole now."""
    had = _size(part)
    headers = {'Range': f'bytes={had}-'} if had else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and had:  # nothing lies behind the end
            return True
        raise
    with answer:
        if answer.status != 206:  # the server sends all of it again
            had = 0
        length = answer.headers.get('Content-Length')
        whole = had + int(length) if length else None
        with (
            open(part, 'ab' if had else 'wb') as file,
            tqdm(
                desc='downloading',
                initial=had,
                total=whole,
                unit='B',
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while block := answer.read1(_BLOCK):
                file.write(block)
                bar.update(len(block))
    return whole is None or _size(part) >= whole


def md5_of(path: Path) -> str:
    """MD5 of a file: against damage and mix-ups, not against forgery."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar.gz; nothing is written if a member would leave the folder.

    Raises:
        ValueError: if the archive is damaged or no archive, the disk is too small, or
            it is unsafe: a member leads out of the folder, is a link or a device, or
            all of them are more than ``_MAX_RATIO`` times the archive.
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
        NotImplementedError,  # zipfile's word for an unknown compression
        RuntimeError,  # and for a password
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
    """Refuse files that others would have to lie in."""
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
            f'{_MAX_RATIO} times as many, which is made to fill the disk. If you know '
            'what is in it, unpack it yourself and give the folder'
        )
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise UserError(
            f'{archive} unpacks to {needed / 2**20:,.0f} MB, {folder.parent} has '
            f'{free / 2**20:,.0f} MB free: make room, or name another disk with --out'
        )
