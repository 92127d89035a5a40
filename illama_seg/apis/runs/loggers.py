"""TensorBoard and Weights & Biases, beside the log of every run."""

from __future__ import annotations

import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from mmengine.config import Config
from mmengine.logging import print_log

from illama_seg.errors import UserError


def add_tensorboard(cfg: Config) -> None:
    """Write what is logged for TensorBoard too, into ``work_dir/TIME/vis_data``.

    Raises:
        ValueError: if the package is not installed.
    """
    _need('tensorboard')
    _add(cfg, dict(type='TensorboardVisBackend'))
    print_log(f'TensorBoard: tensorboard --logdir {cfg.work_dir}', logger='current')


def add_wandb(cfg: Config) -> None:
    """Write what is logged for Weights & Biases too.

    Offline, unless ``WANDB_MODE`` says otherwise or the user is logged in.

    Raises:
        ValueError: if the package is not installed.
    """
    _need('wandb')
    options = dict(project='illama_seg', name=Path(cfg.work_dir).name)
    for name in ('project', 'name'):  # wandb would prefer an argument
        if f'WANDB_{name.upper()}' in os.environ:
            options.pop(name)
    if 'WANDB_MODE' not in os.environ and not _logged_in():
        options['mode'] = 'offline'
        folder = f'{cfg.work_dir}/*/vis_data/wandb/offline-run-*'
        print_log(
            f'Weights & Biases: offline, to send it later: wandb sync {folder}; to '
            'send it at once: wandb login, or WANDB_MODE=online',
            logger='current',
        )
    _add(cfg, dict(type='ConfigWandbVisBackend', init_kwargs=options))


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f'--{package}: not installed: pip install {package}')


def _add(cfg: Config, backend: dict) -> None:
    backends = cfg.visualizer.vis_backends
    if backend['type'] not in [other['type'] for other in backends]:
        cfg.visualizer.vis_backends = [*backends, backend]


def _logged_in() -> bool:
    """Whether wandb would find a key without asking for it."""
    if 'WANDB_API_KEY' in os.environ or 'WANDB_IDENTITY_TOKEN_FILE' in os.environ:
        return True
    url = os.environ.get('WANDB_BASE_URL', 'https://api.wandb.ai')
    try:
        known = netrc.netrc(os.environ.get('NETRC'))
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urlsplit(url).hostname or '') is not None
