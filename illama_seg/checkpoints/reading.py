"""Fetch checkpoint files and read them without running the code in them."""

import logging
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import torch
from filelock import FileLock
from safetensors import safe_open
from torch import Tensor

from illama_seg.checkpoints.fingerprints import check_trusted
from illama_seg.checkpoints.released import RELEASED
from illama_seg.checkpoints.unpickling import (
    ALLOWED,
    UnusableContentError,
    allowed_globals,
    replace_stand_ins,
)
from illama_seg.errors import MissingFileError, UserError
from illama_seg.files import atomic, download

_LOGGER = logging.getLogger('illama_seg')
# In the metadata of a backbone's state dict: the (h, w) of its positional embedding; in
# that of a .safetensors file, which holds strings only, 'hxw'.
GRID_KEY = 'grid_size'
MASK_KEY = 'soft_mask'
# OpenMMLab and torch hub end a name in the start of the file's sha256; eight digits
# that read as a date are none. torch's own pattern takes the 83 of '-83.0.pth' for one.
HASH_SUFFIX = re.compile(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.[A-Za-z]+$')
_TORCH_OWN = ('torch.', 'collections.', '_codecs.')


def read_checkpoint(
    path: str | Path,
    map_location: str | torch.device = 'cpu',
    *,
    mmap: bool = False,
) -> dict[str, Any]:
    """Read a local checkpoint file without running any code in it.

    Weights, containers, numbers, strings and ``argparse.Namespace`` are returned as
    they were saved; numpy's numbers and arrays as numbers and tensors; an mmengine
    ``HistoryBuffer`` as a dict with the keys ``CURVE``; every other object that
    mmengine saves as ``Opaque``. Names added by
    ``torch.serialization.add_safe_globals`` are allowed too.

    Args:
        path: a ``.safetensors`` file, or any file written by ``torch.save``.
        map_location: device for the tensors.
        mmap: leave the tensors in the file until they are used, where the format
            allows it. The file must not be overwritten meanwhile.

    Returns:
        The dict that the file holds.

    Raises:
        MissingFileError: if there is no such file.
        UserError: if the file asks for code to be run, is truncated, decompresses to
            more than its size, contains a reference cycle, or is no checkpoint.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        known = RELEASED.get(path.name)
        hint = f'; download it from {known.url}' if known else ''
        raise MissingFileError(f'no checkpoint file at {path}{hint}')
    _check_packing(path)
    try:
        if path.suffix == '.safetensors':
            return _read_safetensors(path, str(map_location))
        with allowed_globals():
            content = torch.load(
                path,
                map_location=map_location,
                weights_only=True,
                mmap=mmap and zipfile.is_zipfile(path),
            )
        content = replace_stand_ins(content)
    except (OSError, MemoryError):
        raise
    except UnusableContentError as error:
        raise UserError(f'{path} was refused: {error}') from error
    except Exception as error:  # every reader has errors of its own for a bad file
        raise UserError(_explain(path, error)) from error
    if not isinstance(content, dict):
        raise UserError(
            f'{path} holds a {type(content).__name__}, not a dict of weights'
        )
    return content


def fetch_checkpoint(path_or_url: str | Path, folder: str | Path | None = None) -> Path:
    """Return the local path of a checkpoint; download a URL once.

    A name that ends in 8 or more digits of a sha256 (``name-0123abcd.pth``) is checked
    against it. A download is kept only if it is complete and can be read safely. No
    checksums of the released files are published: the first download's sha256 is noted
    beside it in ``TRUSTED``, and later downloads must have the same one. Files from
    other URLs are kept in a folder for each URL, unless the name has a hash.

    Args:
        path_or_url: local path, passed through with ``~`` expanded, or http(s) URL.
        folder: folder of the downloads; torch hub's cache by default.

    Raises:
        ConnectionError: if the URL cannot be reached.
        UserError: if the file has another hash, or is no readable checkpoint.
    """
    url = str(path_or_url)
    if not url.lower().startswith(('http://', 'https://')):
        return Path(path_or_url).expanduser()
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if name in ('', '..'):
        raise UserError(f'{url} does not end in a file name')
    is_released = name in RELEASED and url.partition('?')[0] == RELEASED[name].url
    target = Path(folder or Path(torch.hub.get_dir()) / 'checkpoints') / name
    if not (is_released or HASH_SUFFIX.search(name)):
        # Files of the same name from other URLs have other contents.
        target = target.parent / sha256(url.encode()).hexdigest()[:16] / name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f'.{name}.lock')):
            if not target.is_file():
                _download(url, target, is_released)
                return target
    _LOGGER.info('using %s, downloaded before', target)
    if is_released:
        check_trusted(target, target)
    return target


def note_grid(weights: OrderedDict, module: str, grid: tuple[int, int]) -> None:
    """Note the grid of ``module``'s positional embedding, as torch notes versions."""
    notes = getattr(weights, '_metadata', OrderedDict())
    weights._metadata = notes | {module: {GRID_KEY: grid}}  # type: ignore[attr-defined]


def _read_safetensors(path: Path, device: str) -> OrderedDict[str, Tensor]:
    with safe_open(path, 'pt', device=device) as file:
        keys = file.keys()
        weights = OrderedDict((key, file.get_tensor(key)) for key in keys)
        note = (file.metadata() or {}).get(GRID_KEY, '')
    if grid := re.fullmatch(r'(\d+)x(\d+)', note):
        for module in ('', 'backbone'):
            note_grid(weights, module, (int(grid[1]), int(grid[2])))
    return weights


def _download(url: str, target: Path, is_released: bool) -> None:
    _LOGGER.info('downloading %s to %s', url, target)
    digest = HASH_SUFFIX.search(target.name)
    with atomic(target) as part:
        try:
            download(url, part, digest[1] if digest else '', 'sha256', attempts=1)
        except ConnectionError as error:
            raise ConnectionError(
                f'{error}\nWithout a network, put the file at {target}, or give the '
                'path of a local file'
            ) from error
        try:
            read_checkpoint(part, mmap=True)
        except ValueError as error:
            reason = str(error).replace(str(part), target.name)
            raise UserError(f'{url}: the download was not kept. {reason}') from error
        if is_released:
            check_trusted(part, target)


def _check_packing(path: Path) -> None:
    """Refuse a compressed zip, which could fill the memory: torch never compresses."""
    try:
        if path.suffix == '.safetensors' or not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return  # torch explains it
    size = path.stat().st_size
    if declared > size:
        raise UserError(
            f'{path} was refused: it unpacks to {declared:,} bytes and has {size:,}, '
            'but torch.save does not compress. If you compressed it and trust it, '
            'read it with torch.load and save it again'
        )


def _explain(path: Path, error: Exception) -> str:
    found = re.search(r'GLOBAL (\S+)', str(error))
    name = found[1] if found else _foreign_global(path)
    if isinstance(error, pickle.UnpicklingError) and name:
        return (
            f'{path} was refused, and nothing in it was run: it asks for {name}, and a '
            'pickle can run any code while it is read. If you trust the file, read it '
            'in a sandbox, with torch.load(..., weights_only=False), and '
            'save its weights with safetensors.torch.save_file; or allow that name by '
            'torch.serialization.add_safe_globals before reading it here.'
        )
    reason = str(error).split('WeightsUnpickler error:')[-1].strip()
    return (
        f'{path} is truncated, or was not written by safetensors or by torch.save with '
        f'its default pickle protocol ({type(error).__name__}: {reason[:200]})'
    )


def _foreign_global(path: Path) -> str | None:
    """Return the first forbidden name that the pickles in a file import.

    torch reports it only for pickle protocol 2.
    """
    strings: list[str] = []
    memo: dict[Any, Any] = {}
    pushed = None
    try:
        with _open_pickle(path) as file:
            while True:
                for opcode, argument, _ in pickletools.genops(file):
                    if opcode.name == 'MEMOIZE':
                        memo[len(memo)] = pushed
                        continue
                    is_get = opcode.name in ('BINGET', 'LONG_BINGET')
                    pushed = memo.get(argument) if is_get else argument
                    if isinstance(pushed, str):
                        strings += pushed.split(' ')
                    if opcode.name in ('GLOBAL', 'STACK_GLOBAL'):
                        name = '.'.join(strings[-2:])
                        if not name.startswith(_TORCH_OWN) and name not in ALLOWED:
                            return name
    except Exception:  # the end of the last pickle
        return None


def _open_pickle(path: Path) -> IO[bytes]:
    if not zipfile.is_zipfile(path):
        return open(path, 'rb')
    archive = zipfile.ZipFile(path)
    return archive.open(next(n for n in archive.namelist() if n.endswith('data.pkl')))
