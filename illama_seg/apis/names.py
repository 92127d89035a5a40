"""Find the configs of this package by name, in a checkout and in an installation."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def config_folder() -> Path:
    """Folder of the configs: the checkout's, or what the installation took along.

    Raises:
        FileNotFoundError: if neither is there.
    """
    # .mim first: anything may lie beside a package in site-packages.
    folders = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for folder in folders:
        if (folder / '_base_' / 'default_runtime.py').is_file():
            return folder.resolve()
    raise FileNotFoundError(
        f'no configs in {folders[0]} or {folders[1]}: install illama_seg anew, or give '
        'the path of a config file'
    )


def list_models(pattern: str = '*') -> list[str]:
    """Names of the configs, sorted.

    Args:
        pattern: as of a shell, such as ``'upernet_*_ade20k'``.
    """
    return sorted(name for name in _configs() if fnmatchcase(name, pattern))


def find_config(name: str | Path) -> Path | None:
    """Path of a config given by name; None if there is none.

    Args:
        name: with or without ``.py``, and its folder: ``illama_tiny_in1k``,
            ``pretrain/illama_tiny_in1k.py``, ``configs/pretrain/illama_tiny_in1k.py``.
    """
    wanted = Path(name).as_posix().removesuffix('.py')
    found = _configs().get(wanted.rpartition('/')[2])
    if found is None:
        return None
    inside = found.relative_to(config_folder()).with_suffix('').as_posix()
    return found if wanted in (found.stem, inside, f'configs/{inside}') else None


def nearest_names(name: str | Path) -> list[str]:
    """The names most like this one, or all if none is."""
    stem = Path(name).name.removesuffix('.py')
    return get_close_matches(stem, _configs(), n=4) or list_models()


def _configs() -> dict[str, Path]:
    """Name -> path."""
    folder = config_folder()
    return {
        path.stem: path
        for path in folder.rglob('*.py')
        if '_base_' not in path.relative_to(folder).parts
    }
