"""Soft mask ablation of the paper's Table 9: with and without it, and a plain ViT."""

import copy
import multiprocessing
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from illama_seg.apis.configs import load_config
from illama_seg.apis.training import build_trainer
from illama_seg.errors import UserError
from illama_seg.studies.ablations.many_runs import KEPT, settings_of
from illama_seg.studies.ablations.roadmap import SCHEDULES, set_mask
from illama_seg.studies.common import check_at_least, run_apart
from illama_seg.studies.comparison.curves import compare_runs


def ablation_runs(
    config: str | Path,
    out: str | Path,
    *,
    masks: Sequence[str] | None = None,
    num_seeds: int = 1,
    cfg_options: dict | None = None,
) -> list[Config]:
    """Make the configs of the runs, each with its work dir ``OUT/GROUP/SEED``.

    The groups are the masks, and ``vit`` where the config names the config of a plain
    ViT in its folder, ``plain_vit``.

    Args:
        config: config of a classification with one SoftMaskHook, or its name.
        out: folder for the runs.
        masks: some of none, constant, linear; by default none and the config's own.
        num_seeds: runs of each group, with the seeds from 0 on.
        cfg_options: overrides; the ViT has all except those of ``custom_hooks``.

    Raises:
        MissingFileError: if a config is missing.
        UserError: if the config has no schedule to change, or a parameter is out of
            range.
    """
    cfg = load_config(config, cfg_options)
    hooks = cfg.get('custom_hooks') or []
    if [hook.get('type') for hook in hooks] != ['SoftMaskHook']:
        raise UserError(
            f'{cfg.filename}: expected a config whose only custom hook is '
            'SoftMaskHook, such as configs/transfer/illama_tiny_cifar10.py'
        )
    masks = list(masks or ('none', hooks[0].mode))
    if set(masks) - set(SCHEDULES):
        raise UserError(f'expected some of {", ".join(SCHEDULES)}', masks=masks)
    check_at_least(1, num_seeds=num_seeds)
    if 'max_epochs' not in cfg.train_cfg:
        raise UserError(
            f'{cfg.filename} has train_cfg={dict(cfg.train_cfg)}: expected a training '
            'by epochs, with max_epochs'
        )
    groups = {}
    if plain_vit := cfg.get('plain_vit'):
        every = (cfg_options or {}).items()
        options = {k: v for k, v in every if not k.startswith('custom_hooks')}
        groups['vit'] = load_config(Path(cfg.filename).with_name(plain_vit), options)
    for mask in masks:
        groups[mask] = copy.deepcopy(cfg)
        set_mask(groups[mask], mask)
    runs = []
    for name, group in groups.items():
        for seed in range(num_seeds):
            run = copy.deepcopy(group)
            run.randomness = dict(run.get('randomness', {}), seed=seed)
            run.work_dir = str(Path(out) / name / str(seed))
            runs.append(run)
    return runs


def run_soft_mask_ablation(
    config: str | Path,
    out: str | Path,
    *,
    masks: Sequence[str] | None = None,
    num_seeds: int = 1,
    amp: bool = False,
    cfg_options: dict | None = None,
) -> str:
    """Train the runs that are not finished, then compare all; return the table.

    Writes the files of :func:`illama_seg.studies.compare_runs` into ``out``. The runs
    are trained one after the other, each in a process of its own; an interrupted run
    continues from its last checkpoint.

    Args:
        config, out, masks, num_seeds, cfg_options: see :func:`ablation_runs`.
        amp: half precision where it is faster on this machine.

    Raises:
        MissingFileError: if the config or the data are missing.
        UserError: if a run's settings are wrong, or ``out`` has a run of others.
    """
    runs = ablation_runs(
        config, out, masks=masks, num_seeds=num_seeds, cfg_options=cfg_options
    )
    due = [cfg for cfg in runs if not is_finished(cfg)]
    for number, cfg in enumerate(due, 1):
        print_log(f'run {number} of {len(due)}: {cfg.work_dir}', logger='current')
        _train_apart(cfg, amp)
    groups = dict.fromkeys(Path(cfg.work_dir).parent for cfg in runs)
    return compare_runs(list(groups), out)


def is_finished(cfg: Config) -> bool:
    """Return whether the work dir has the checkpoint of the last epoch.

    Raises:
        UserError: if it has a run of other settings.
    """
    folder = Path(cfg.work_dir)
    pointer = folder / 'last_checkpoint'
    if not pointer.is_file():
        return False
    settings = settings_of(cfg)
    for file in folder.glob('*.py'):
        earlier = settings_of(load_config(file))
        differ = [key for key in settings if earlier[key] != settings[key]]
        if differ:
            raise UserError(
                f'{folder} has a run of other settings ({", ".join(differ)}): choose '
                'another folder (out), or remove it'
            )
    last = Path(pointer.read_text().strip()).name
    return last == f'epoch_{cfg.train_cfg.max_epochs}.pth'


def _train_apart(cfg: Config, amp: bool) -> None:
    """Train in a process of its own, since mmengine keeps global state."""
    try:
        run_apart(_train, cfg, amp)
    except (UserError, OSError) as error:
        raise UserError(f'{cfg.work_dir}: {error}\n{KEPT}') from error
    except BrokenProcessPool as error:
        raise UserError(f'{cfg.work_dir}: process killed. {KEPT}') from error


def _train(cfg: Config, amp: bool) -> None:
    # The config's method: mmengine warns where it has to change it.
    method = cfg.get('env_cfg', {}).get('mp_cfg', {}).get('mp_start_method', 'fork')
    multiprocessing.set_start_method(method, force=True)
    build_trainer(cfg, amp, resume=True).train()
