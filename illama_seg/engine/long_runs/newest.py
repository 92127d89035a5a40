"""Find the newest checkpoint that is whole, and check that it can be resumed."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner

from illama_seg.checkpoints import open_checkpoint
from illama_seg.engine.long_runs.checkpoint import POINTER
from illama_seg.errors import UserError


def resume_from_newest(runner: Runner) -> None:
    """Let a runner resume from its newest undamaged checkpoint.

    Does nothing if the config names one in ``load_from``, or the work dir has none.
    The main process chooses for all.

    Raises:
        UserError: there are checkpoints, and all are damaged.
    """
    if not runner._resume or runner._load_from is not None:
        return
    answer: list[str | None] = [None, None]
    if is_main_process():
        try:
            found = newest_checkpoint(runner.work_dir)
            answer = [str(found) if found else None, None]
        except UserError as error:
            answer = [None, str(error)]
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise UserError(answer[1])
    runner._load_from = answer[0]


def check_resumable(runner: Runner) -> None:
    """Refuse to resume from a file of weights only.

    Raises:
        MissingFileError: there is no such file.
        UserError: names the file, the missing keys and the fix.
    """
    path = runner._load_from
    if not runner._resume or path is None:
        return
    content = open_checkpoint(path).content
    needed = ('state_dict', 'meta', 'message_hub', 'optimizer')
    lacking = [key for key in needed if not isinstance(content.get(key), dict)]
    if 'meta' not in lacking:
        place = [content['meta'].get(key) for key in ('epoch', 'iter')]
        if not all(isinstance(number, int) and number >= 0 for number in place):
            lacking = ['meta.epoch and meta.iter', *lacking]
    if lacking:
        raise UserError(
            f'{path} cannot be resumed: {", ".join(lacking)} of a training are not in '
            'it, as in a file of weights only. To start a training from its weights, '
            f'set load_from={path} and leave resume out'
        )


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the newest undamaged checkpoint to resume from; warn of damaged ones.

    Tries the file in the work dir that ``last_checkpoint`` names, else that file
    elsewhere, then ``iter_*.pth`` and ``epoch_*.pth``, the last written first.

    Raises:
        UserError: all are damaged; names them.
    """
    folder = Path(work_dir)
    candidates = []
    pointer = folder / POINTER
    if pointer.is_file():
        named = Path(pointer.read_text(errors='replace').strip('\0 \n') or '.')
        # First in this folder: the pointer of a copied folder names the original.
        here = folder / (named.name or '.')
        candidates = [p for p in (here, named) if p.is_file()][:1]
        if not candidates:
            _warn(f'{pointer} names {named}, which is not there')
    others = [
        path
        for path in folder.glob('*.pth')
        if re.fullmatch(r'(iter|epoch)_\d+', path.stem) and path.is_file()
    ]
    others.sort(key=lambda p: (p.stat().st_mtime, int(p.stem.split('_')[1])))
    others.reverse()
    named_files = {path.resolve() for path in candidates}
    candidates += [path for path in others if path.resolve() not in named_files]
    damaged: list[str] = []
    for path in candidates:
        reason = _damage(path)
        if reason is None:
            if damaged:
                _warn(f'resuming from the newest undamaged one, {path}')
            return path
        damaged.append(f'{path}: {reason}')
        _warn(f'damaged checkpoint {damaged[-1]}')
    if damaged:
        raise UserError(
            'no checkpoint to resume from is undamaged:\n  '
            + '\n  '.join(damaged)
            + f'\nRemove them and {pointer}, or leave resume out, to start again'
        )
    return None


def _damage(path: Path) -> str | None:
    """Describe the damage of a file of ``torch.save``, or None; unpickles nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # compares every checksum
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        return f'{path.stat().st_size:,} bytes, truncated or overwritten ({error})'
    return broken and f'the checksum of {broken} in it is wrong'


def _warn(text: str) -> None:
    print_log(text, logger='current', level=30)
