"""Notice a released file that has changed since it first came."""

import hashlib
import json
import logging
import os
from pathlib import Path

from illama_seg.errors import UserError

_LOGGER = logging.getLogger('illama_seg')
# In the folder of the downloads: the sha256 of each released file when it first came.
TRUSTED = 'illama_seg_sha256.json'
_CHUNK_BYTES = 1 << 20
# Released file -> size and time of what was checked in this process.
_checked: dict[Path, tuple[int, int]] = {}


def sha256_of(path: Path) -> str:
    """Hexadecimal digits of a file's sha256."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_trusted(file: Path, target: Path) -> None:
    """Compare a released file with what came first under its name; or note it.

    Args:
        file: what has come, or lies there.
        target: where it lies, or will; the record is beside it.

    Raises:
        ValueError: if it is another file, or the record cannot be read.
    """
    stat = file.stat()
    seen = stat.st_size, stat.st_mtime_ns
    if _checked.get(target) == seen:
        return
    found, record = sha256_of(file), target.with_name(TRUSTED)
    try:
        known = json.loads(record.read_text()) if record.is_file() else {}
        expected = known.get(target.name, found)
    except (ValueError, AttributeError) as error:
        raise UserError(
            f'{record} cannot be read ({error}): delete it to trust the released files '
            'beside it anew'
        ) from error
    if expected != found:
        kept = file == target
        raise UserError(
            f'{target if kept else f"the download of {target.name}"} is another file '
            f'than the one that came first: its sha256 is\n{found}, expected\n'
            f'{expected} (from {record}). '
            f'{"Delete it to download it again" if kept else "It was not kept"}; if '
            'you know why it changed and trust it, delete its line there'
        )
    if target.name not in known:
        known[target.name] = found
        try:
            part = record.with_name(f'{record.name}.{os.getpid()}')
            part.write_text(json.dumps(known, indent=1, sort_keys=True))
            os.replace(part, record)
        except OSError as error:
            _LOGGER.warning('%s cannot be written: %s', record, error)
        _LOGGER.info(
            '%s: no checksum is published, so this first file is trusted; its sha256 '
            '%s is noted in %s, and another file under this name will be refused',
            target.name,
            found,
            record,
        )
    _checked[target] = seen
