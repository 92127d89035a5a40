"""Files: atomic writes, checksums and downloads."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from illama_seg.errors import UserError

_LOGGER = logging.getLogger('illama_seg')
_BLOCK = 1 << 20
_WAIT = 2.0  # seconds before the second attempt; each later one waits twice as long


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; it is renamed to ``path`` if no error occurs.

    The temporary path has the same name, in a new directory beside ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        part = Path(folder) / path.name
        yield part
        os.replace(part, path)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as part:
        part.write_text(text, encoding='utf-8')


def digest_of(path: Path, algorithm: str) -> str:
    """Return a file's checksum in hexadecimal digits, by 'sha256' or 'md5'."""
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != 'md5')
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    target: Path,
    digest: str = '',
    algorithm: str = 'md5',
    attempts: int = 3,
) -> None:
    """Download a file; continue an interrupted download.

    The bytes received so far are in ``target`` + '.part'; the next call continues it.

    Args:
        url: http(s) URL.
        target: file to write.
        digest: first hexadecimal digits of the expected checksum.
        algorithm: 'md5' or 'sha256'.
        attempts: consecutive attempts that may receive nothing.

    Raises:
        ConnectionError: if the download is incomplete; the .part file is kept.
        UserError: if the checksum differs; the download is deleted.
    """
    part = target.with_name(target.name + '.part')
    failed = 0
    while True:
        had = size_of(part)
        try:
            if _fetch_rest(url, part):
                break
            error: Exception = ConnectionError('the connection was interrupted')
        except (OSError, http.client.HTTPException) as caught:
            error = caught
        failed = 1 if size_of(part) > had else failed + 1
        code = getattr(error, 'code', 500)  # only an HTTPError has one
        refused = code < 500 and code not in (408, 429)
        if failed >= attempts or refused:
            raise ConnectionError(f'could not download {url}: {error}') from error
        _LOGGER.warning('%s: %s; trying again', url, error)
        time.sleep(_WAIT * 2 ** (failed - 1))
    found = digest_of(part, algorithm)
    if not found.startswith(digest):
        size = size_of(part)
        part.unlink()
        raise UserError(
            f'{url}: {size:,} bytes with the {algorithm} {found}, expected {digest}; '
            'nothing was kept. Download again, or get the file elsewhere'
        )
    os.replace(part, target)


def size_of(path: Path) -> int:
    """Return a file's size in bytes, 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def _fetch_rest(url: str, part: Path) -> bool:
    """Append the missing bytes to a file; return True if it is complete."""
    from tqdm import tqdm  # which an exported file does not need

    had = size_of(part)
    headers = {'Range': f'bytes={had}-'} if had else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and had:  # the file ends here
            return True
        raise
    with answer:
        if answer.status != 206:  # the server sends the whole file again
            had = 0
        length = answer.headers.get('Content-Length')
        total = had + int(length) if length else None
        with (
            open(part, 'ab' if had else 'wb') as file,
            tqdm(
                desc='downloading',
                initial=had,
                total=total,
                unit='B',
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while block := answer.read1(_BLOCK):
                file.write(block)
                bar.update(len(block))
    return total is None or size_of(part) >= total
