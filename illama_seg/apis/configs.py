"""Find, read and override configs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from illama_seg.apis.runs.batches import learning_rate, note_recipe
from illama_seg.apis.runs.processes import check_launcher
from illama_seg.apis.user_errors import check_environment
from illama_seg.errors import MissingFileError, UserError

# Variables of the config files, and the settings that take their values.
_SUBSTITUTED = {
    'max_iters': 'train_cfg.max_iters (and the ends in param_scheduler)',
    'data_root': 'train_dataloader.dataset.data_root, and the same of val_ and test_',
}
# Settings that something reads, beside the arguments of mmengine's runner.
_READ = {
    'activation_checkpointing', 'auto_scale_lr', 'compile', 'custom_imports',
    'effective_batch', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'plain_vit', 'runner_type', 'strategy', 'sync_bn',
    'test_pipeline', 'tta_model', 'tta_pipeline',
}  # fmt: skip
_SETTINGS = {*inspect.signature(Runner).parameters} - {'self'}


def parse_cfg_options(pairs: Sequence[str] | None) -> dict[str, Any]:
    """Read overrides as the command line gives them, in mmengine's syntax of values.

    Args:
        pairs: ``KEY=VALUE`` each; the value a number, a string, True, None, or a list
            or tuple of values.

    Returns:
        Dotted key -> value.

    Raises:
        UserError: names the pair without ``=``, whose brackets do not match, or that
            gives a dict.
    """
    options = {}
    for pair in pairs or ():
        key, separator, value = pair.partition('=')
        if not separator:
            raise UserError('expected KEY=VALUE', cfg_options=pair)
        if value.lstrip(' [(').startswith(('dict(', '{')):
            raise UserError(
                'a dict cannot be given here: set its keys one by one, as in '
                f'{key}.KEY=VALUE ({key}.0.KEY=VALUE in a list), or write a config '
                'file that has this one as _base_',
                cfg_options=pair,
            )
        try:
            options[key] = _parse_value(value)
        except AssertionError as error:  # mmengine's word for open brackets
            raise UserError(str(error), cfg_options=pair) from error
    return options


def _parse_value(text: str) -> Any:
    """Read a value as mmengine does; a string or path keeps its spaces and commas."""
    value = DictAction._parse_iterable(text)
    if isinstance(value, str):
        return text.strip('\'"')
    is_bare = isinstance(value, list) and not text.lstrip().startswith(('[', '('))
    if is_bare and any(isinstance(part, str) and '/' in part for part in value):
        return text.strip('\'"')
    return value


def load_config(
    path: str | Path,
    cfg_options: dict | None = None,
    work_dir: str | Path | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config and set its work dir, by default ``work_dirs/<config name>``.

    Args:
        path: config file; where there is no such file, the name of a config of this
            package.
        cfg_options: overrides: dotted key -> value.
        work_dir: folder for logs and checkpoints.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        MissingFileError: if there is no such config; lists those beside it and the
            nearest names.
        UserError: if the config cannot be read, an override does not fit it or has no
            effect, the launcher's variables are not set, or this package's have unknown
            values.
    """
    path = _config_file(Path(path))
    check_launcher(launcher)
    check_environment()
    for name, real in _SUBSTITUTED.items():
        if name in (cfg_options or {}):
            raise UserError(f'has no effect by itself: set {real}', cfg_options=name)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: it may raise anything
        raise UserError(f'config {path}: {type(error).__name__}: {error}') from error
    for name in dict.fromkeys(key.split('.')[0] for key in cfg_options or {}):
        _check_effect(cfg, name)
    rate = learning_rate(cfg)
    note_recipe(cfg, rate)
    try:
        cfg.merge_from_dict(cfg_options or {})
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        text = f'does not fit {path}: {error}'
        raise UserError(text, cfg_options=cfg_options) from error
    note_recipe(cfg, rate)  # again: an override may be the first to name the batch
    cfg.launcher = launcher
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or f'work_dirs/{path.stem}')
    return cfg


def _check_effect(cfg: Config, name: str) -> None:
    """Refuse to override a variable that only the config file itself reads.

    Such a one has the name or the value of a setting elsewhere in the config. Any other
    is left alone: a hook may read it.

    Raises:
        UserError: names the settings that are meant.
    """
    read = _READ | _SETTINGS
    if name in read:
        return
    near = get_close_matches(name, _SETTINGS, n=1, cutoff=0.8)
    if name not in cfg and near:
        raise UserError(f'no such setting: set {near[0]}', cfg_options=name)
    value = cfg.get(name)
    parts = {key: part for key, part in cfg.items() if key in read}
    places = [
        option
        for option, part in _options(parts)
        if (option.rpartition('.')[2] == name and (name not in cfg or part == value))
        or (isinstance(value, list | tuple | dict) and value and part == value)
    ]
    if places:
        raise UserError(
            f'has no effect by itself: set {", ".join(places)}', cfg_options=name
        )


def _options(part: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of each setting in a part of a config."""
    if isinstance(part, Mapping):
        several: Any = part.items()
    else:
        several = enumerate(part) if isinstance(part, list | tuple) else ()
    for key, value in several:
        yield f'{prefix}{key}', value
        yield from _options(value, f'{prefix}{key}.')


def _config_file(path: Path) -> Path:
    found = path if path.is_file() else find_config(path)
    if found is not None:
        return found
    beside = sorted(file.name for file in path.parent.glob('*.py'))
    raise MissingFileError(
        f'no config {path}; '
        + (
            f'in {path.parent} there are: {", ".join(beside)}; '
            if beside and path.suffix == '.py'
            else ''
        )
        + f'the nearest names: {", ".join(nearest_names(path))}'
    )


_PACKAGE = Path(__file__).parents[1]


def config_folder() -> Path:
    """Return the folder of the configs, in the checkout or in the installation.

    Raises:
        MissingFileError: if neither is there.
    """
    # .mim first: anything may lie beside a package in site-packages.
    folders = (_PACKAGE / '.mim' / 'configs', _PACKAGE.parent / 'configs')
    for folder in folders:
        if (folder / '_base_' / 'default_runtime.py').is_file():
            return folder.resolve()
    raise MissingFileError(
        f'no configs in {folders[0]} or {folders[1]}: install illama_seg again, or '
        'give the path of a config file'
    )


def list_models(pattern: str = '*') -> list[str]:
    """List the names of the configs, sorted.

    Args:
        pattern: shell pattern, such as ``'upernet_*_ade20k'``.
    """
    return sorted(name for name in _configs() if fnmatchcase(name, pattern))


def find_config(name: str | Path) -> Path | None:
    """Return the path of a config given by name, or None.

    Args:
        name: with or without ``.py`` and folder: ``illama_tiny_in1k``,
            ``pretrain/illama_tiny_in1k.py``, ``configs/pretrain/illama_tiny_in1k.py``.
    """
    wanted = Path(name).as_posix().removesuffix('.py')
    found = _configs().get(wanted.rpartition('/')[2])
    if found is None:
        return None
    inside = found.relative_to(config_folder()).with_suffix('').as_posix()
    return found if wanted in (found.stem, inside, f'configs/{inside}') else None


def nearest_names(name: str | Path) -> list[str]:
    """List up to 4 similar names, or all names if none is similar."""
    stem = Path(name).name.removesuffix('.py')
    return get_close_matches(stem, _configs(), n=4) or list_models()


def _configs() -> dict[str, Path]:
    """Map the names of the configs to their paths."""
    folder = config_folder()
    return {
        path.stem: path
        for path in folder.rglob('*.py')
        if '_base_' not in path.relative_to(folder).parts
    }


def get_config(name: str, cfg_options: dict | None = None) -> Config:
    """Read a config of this package by name.

    Args:
        name: with or without ``.py`` and folder; see :func:`list_models`.
        cfg_options: overrides: dotted key -> value.

    Raises:
        UserError: if there is no such config (names the nearest), or an override does
            not fit it.
    """
    path = find_config(name)
    if path is None:
        raise UserError(
            f'no config named {name!r}; the nearest: {", ".join(nearest_names(name))}'
        )
    return load_config(path, cfg_options)
