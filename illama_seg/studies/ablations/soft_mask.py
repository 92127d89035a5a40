"""The soft mask ablation of the paper's Table 9: with it, without it, a plain ViT."""

from __future__ import annotations

import copy
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from illama_seg.apis.configs import load_config
from illama_seg.apis.training import build_trainer
from illama_seg.errors import UserError
from illama_seg.studies.comparison.curves import compare_runs

MASKS = ('none', 'constant', 'linear')
KEPT = 'Finished runs are kept: the same command goes on from there'
# In these a run that is there must be what was asked for.
SETTINGS = (
    'model',
    'effective_batch',
    'custom_hooks',
    'param_scheduler',
    'randomness.seed',
    'train_dataloader.dataset',
    'val_dataloader.dataset',
    'optim_wrapper.optimizer',
    'train_cfg.max_epochs',
)


def ablation_runs(
    config: str | Path,
    out: str | Path,
    masks: Sequence[str] | None = None,
    num_seeds: int = 1,
    cfg_options: dict | None = None,
) -> list[Config]:
    """Configs of the runs, each with its work dir ``OUT/LINE/SEED``.

    The lines are ``vit``, of the config that has ``vit`` for ``illama`` in its name,
    where there is one beside; and the masks.

    Args:
        config: of a classification with one SoftMaskHook, or its name.
        out: folder for the runs.
        masks: of ``MASKS``; by default none and the config's own.
        num_seeds: runs of each line, with the seeds from 0 on.
        cfg_options: overrides; the ViT takes all but those of ``custom_hooks``.

    Raises:
        FileNotFoundError: if there is no such config.
        ValueError: if it has no schedule to change, or an option is out of its range.
    """
    cfg = load_config(config, cfg_options)
    hooks = cfg.get('custom_hooks') or []
    if [hook.get('type') for hook in hooks] != ['SoftMaskHook']:
        raise UserError(
            f'{cfg.filename}: expected a config whose only custom hook is '
            'SoftMaskHook, such as configs/transfer/illama_tiny_cifar10.py'
        )
    masks = list(masks or ('none', hooks[0].mode))
    if unknown := set(masks) - set(MASKS):
        raise UserError(
            f'--masks {" ".join(masks)}: {", ".join(sorted(unknown))} is none of '
            f'{", ".join(MASKS)}'
        )
    if num_seeds < 1 or 'max_epochs' not in cfg.train_cfg:
        raise UserError(
            f'--seeds {num_seeds}, train_cfg={dict(cfg.train_cfg)} of {cfg.filename}: '
            'expected at least 1, and a training by epochs'
        )
    lines = {}
    path = Path(cfg.filename)
    if (twin := path.with_name(path.name.replace('illama', 'vit'))) != path:
        options = {
            key: value
            for key, value in (cfg_options or {}).items()
            if not key.startswith('custom_hooks')
        }
        if twin.is_file():
            lines['vit'] = load_config(twin, options)
    for mask in dict.fromkeys(masks):
        lines[mask] = copy.deepcopy(cfg)
        if mask == 'none':
            lines[mask].custom_hooks = []
        else:
            lines[mask].custom_hooks[0].mode = mask
    runs = []
    for name, line in lines.items():
        for seed in range(num_seeds):
            run = copy.deepcopy(line)
            run.randomness = dict(run.get('randomness', {}), seed=seed)
            run.work_dir = str(Path(out) / name / str(seed))
            runs.append(run)
    return runs


def run_soft_mask_ablation(
    config: str | Path,
    out: str | Path,
    masks: Sequence[str] | None = None,
    num_seeds: int = 1,
    amp: bool = False,
    cfg_options: dict | None = None,
) -> str:
    """Train what is not finished, then compare: a table, its picture, its numbers.

    Writes what :func:`illama_seg.studies.compare_runs` does. One run after the other,
    each in a process of its own; one that was interrupted goes on from its last
    checkpoint.

    Args:
        config, masks, num_seeds, cfg_options: of :func:`ablation_runs`.
        out: folder for the runs, the picture and the numbers.
        amp: mixed precision, as of ``tools/train.py``.

    Returns:
        The table.

    Raises:
        FileNotFoundError: if the config or the data are missing.
        ValueError: if a run fails by a mistake in its settings, or ``out`` has a run of
            other settings.
    """
    runs = ablation_runs(config, out, masks, num_seeds, cfg_options)
    due = [cfg for cfg in runs if not is_finished(cfg)]
    for number, cfg in enumerate(due, 1):
        print_log(f'run {number} of {len(due)}: {cfg.work_dir}', logger='current')
        _train_apart(cfg, amp)
    lines = dict.fromkeys(Path(cfg.work_dir).parent for cfg in runs)
    return compare_runs(list(lines), out)


def is_finished(cfg: Config) -> bool:
    """Whether the config's work dir has its last epoch's checkpoint.

    Raises:
        ValueError: if it has a run of other settings.
    """
    folder = Path(cfg.work_dir)
    pointer = folder / 'last_checkpoint'
    if not pointer.is_file():
        return False
    for file in folder.glob('*.py'):
        there = load_config(file)
        differ = [key for key in SETTINGS if _value(there, key) != _value(cfg, key)]
        if differ:
            raise UserError(
                f'{folder} has a run of other settings ({", ".join(differ)}): name '
                'another folder with --out, or remove it'
            )
    named = Path(pointer.read_text().strip()).name
    return named == f'epoch_{cfg.train_cfg.max_epochs}.pth'


def _value(cfg: Config, key: str) -> Any:
    """A setting by its dotted key; tuples as lists, as an override has them."""
    found: Any = cfg.to_dict()
    for part in key.split('.'):
        found = (found or {}).get(part)
    return json.loads(json.dumps(found))


def _train_apart(cfg: Config, amp: bool) -> None:
    """Train in a process of its own: mmengine keeps much for the life of one."""
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            pool.submit(_train, cfg, amp).result()
        except (ValueError, OSError) as error:
            raise UserError(f'{cfg.work_dir}: {error}\n{KEPT}') from error
        except BrokenProcessPool as error:
            raise UserError(f'{cfg.work_dir}: it was killed. {KEPT}') from error


def _train(cfg: Config, amp: bool) -> None:
    # As the config has it: mmengine warns where it has to change it.
    method = cfg.get('env_cfg', {}).get('mp_cfg', {}).get('mp_start_method', 'fork')
    multiprocessing.set_start_method(method, force=True)
    build_trainer(cfg, amp, resume=True).train()
