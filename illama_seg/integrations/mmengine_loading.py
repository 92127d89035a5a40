"""Let mmengine read checkpoints without running the code in them.

This makes everything safe that loads through mmengine's ``CheckpointLoader``:
``resume`` and ``load_from`` of its runners, ``init_cfg``, ``mmengine.hub``,
``init_model`` and ``MMSegInferencer`` of mmseg. mmengine alone unpickles files that
torch refuses to read.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from illama_seg.checkpoints import CURVE, fetch_checkpoint, read_checkpoint
from illama_seg.errors import UserError

_NOT_RUN = 'raise ValueError('  # in a config there are only Python's own names


# mmengine cuts the first ten letters, 'load_from_', off these names in its log.
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file by :func:`read_checkpoint`, with the curves as ``HistoryBuffer``.

    A config in a checkpoint is a program that ``MMSegInferencer(weights=FILE)`` and
    ``resume`` would run: its text is kept as comments, and running it raises an error
    that names the file.

    Raises:
        MissingFileError, UserError: see :func:`read_checkpoint`.
    """
    content = read_checkpoint(filename, map_location or 'cpu')
    hub = content.get('message_hub')
    if isinstance(hub, dict) and isinstance(hub.get('log_scalars'), dict):
        scalars = hub['log_scalars']
        scalars.update({name: _history(value) for name, value in scalars.items()})
    if isinstance(hub, dict) and isinstance(hub.get('runtime_info'), dict):
        hub['runtime_info'].pop('cfg', None)  # the runner knows its own
    meta = content.get('meta')
    for key in ('cfg', 'config'):
        if isinstance(meta, dict) and isinstance(meta.get(key), str):
            meta[key] = _commented_out(meta[key], filename)
    return content


def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Download a file once, and read it."""
    return load_from_local(str(fetch_checkpoint(filename)), map_location)


def load_from_ceph(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a file of an object store."""
    backend = get_file_backend(filename, backend_args={'backend': 'petrel'})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (PurePosixPath(filename).name or 'checkpoint')
        path.write_bytes(backend.get(filename))
        return load_from_local(str(path), map_location)


def load_from_pavi(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Refuse to read from Pavi, whose client is not public.

    Raises:
        UserError: always.
    """
    raise UserError(f'{filename}: download the file, and give its path')


def load_from_torchvision(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read one of torchvision's files by the name of its model."""
    models = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_known(filename, models), map_location)


def load_from_openmmlab(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read one of OpenMMLab's files by the name of its model."""
    models = mmengine_checkpoint.get_external_models()
    for old, new in mmengine_checkpoint.get_deprecated_model_names().items():
        models.setdefault(old, models.get(new, new))
    found = _known(filename, models)
    if not found.startswith(('http://', 'https://')):
        found = str(Path(mmengine_checkpoint._get_mmengine_home()) / found)
    return load_from_http(found, map_location)


def load_from_mmcls(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read the backbone of one of mmcls's files by the name of its model."""
    found = _known(filename, mmengine_checkpoint.get_mmcls_models())
    return mmengine_checkpoint._process_mmcls_checkpoint(
        load_from_http(found, map_location)
    )


for _prefixes, _load in {
    ('',): load_from_local,
    ('http://', 'https://'): load_from_http,
    (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'): load_from_ceph,
    ('pavi://',): load_from_pavi,
    ('modelzoo://', 'torchvision://'): load_from_torchvision,
    ('open-mmlab://', 'openmmlab://'): load_from_openmmlab,
    ('mmcls://',): load_from_mmcls,
}.items():
    CheckpointLoader.register_scheme(_prefixes, _load, force=True)


def _known(filename: str, models: Mapping[str, str]) -> str:
    name = filename.partition('://')[2]
    if name not in models:
        raise UserError(f'{filename}: mmengine knows no model of this name')
    return models[name]


def _history(value: Any) -> Any:
    """Build a curve from its plain data.

    Other data is returned as it is: mmengine drops it with a warning.
    """
    try:
        log, count, length = (value[key] for key in CURVE)
        return HistoryBuffer(log.cpu().numpy(), count.cpu().numpy(), int(length))
    except Exception:  # a tensor has many ways not to be a column of numbers
        return value


def _commented_out(text: str, filename: str) -> str:
    """Turn a config into a program that only raises an error with the reason."""
    if text.startswith(_NOT_RUN):
        return text
    reason = (
        f'{filename}: the config inside a checkpoint is a program, and is not run: '
        'give the config beside it, such as MMSegInferencer(model=CONFIG, weights=FILE)'
    )
    lines = [f'# {line}' for line in text.splitlines()]
    return '\n'.join([f'{_NOT_RUN}{reason!r})', *lines]) + '\n'
