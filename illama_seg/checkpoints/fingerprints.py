"""Notice a released file that has changed since its first download."""

import json
import logging
from pathlib import Path

from filelock import FileLock

from illama_seg.errors import UserError
from illama_seg.files import atomic, digest_of

_LOGGER = logging.getLogger('illama_seg')
# In the folder of the downloads: sha256 of the first download of each released file.
TRUSTED = 'illama_seg_sha256.json'
# Released file -> size and time at its last check in this process.
_checked: dict[Path, tuple[int, int]] = {}


def check_trusted(file: Path, target: Path) -> None:
    """Compare a released file with the first one of its name, or note its sha256.

    Args:
        file: the file, or a new download of it.
        target: the file's final path; the record of checksums is beside it.

    Raises:
        UserError: if it is another file, or the record cannot be read.
    """
    stat = file.stat()
    seen = stat.st_size, stat.st_mtime_ns
    if _checked.get(target) == seen:
        return
    found, record = digest_of(file, 'sha256'), target.with_name(TRUSTED)
    expected = _trusted(record).get(target.name)
    if expected is None:
        _note(record, target.name, found)
    elif expected != found:
        kept = file == target
        raise UserError(
            f'{target if kept else f"the download of {target.name}"} is another file '
            f'than the one that came first: its sha256 is\n{found}, expected\n'
            f'{expected} (from {record}). '
            f'{"Delete it to download it again" if kept else "It was not kept"}; if '
            'you know why it changed and trust it, delete its line there'
        )
    _checked[target] = seen


def _trusted(record: Path) -> dict[str, str]:
    try:
        known = json.loads(record.read_text()) if record.is_file() else {}
        return dict(known.items())
    except (ValueError, AttributeError) as error:
        raise UserError(
            f'{record} cannot be read ({error}): delete it to trust the released files '
            'beside it anew'
        ) from error


def _note(record: Path, name: str, digest: str) -> None:
    try:
        with FileLock(record.with_name(f'.{record.name}.lock')), atomic(record) as part:
            known = _trusted(record) | {name: digest}
            part.write_text(json.dumps(known, indent=1, sort_keys=True))
    except OSError as error:
        _LOGGER.warning('%s cannot be written: %s', record, error)
    _LOGGER.info(
        '%s: no checksum is published, so this first file is trusted; its sha256 %s is '
        'noted in %s, and another file under this name will be refused',
        name,
        digest,
        record,
    )
