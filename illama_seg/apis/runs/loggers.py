"""Log to TensorBoard and Weights & Biases, besides mmengine's own log."""

from __future__ import annotations

import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from mmengine.config import Config
from mmengine.logging import print_log

from illama_seg.errors import UserError

PACKAGES = {
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
    'ConfigWandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml',
}


def add_tensorboard(cfg: Config) -> None:
    """Log to TensorBoard too, into ``work_dir/TIME/vis_data``.

    Raises:
        UserError: if the package is not installed.
    """
    _need('tensorboard')
    _add(cfg, dict(type='TensorboardVisBackend'))
    print_log(f'TensorBoard: tensorboard --logdir {cfg.work_dir}', logger='current')


def add_wandb(cfg: Config) -> None:
    """Log to Weights & Biases too, offline unless logged in or ``WANDB_MODE`` is set.

    Raises:
        UserError: if the package is not installed.
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
            f'Weights & Biases: offline. To upload afterwards: wandb sync {folder}; '
            'to upload while training: wandb login, or WANDB_MODE=online',
            logger='current',
        )
    _add(cfg, dict(type='ConfigWandbVisBackend', init_kwargs=options))


def check_loggers(cfg: Config) -> None:
    """Refuse a logger of the config whose package is not installed.

    Raises:
        UserError: names the place in the config and the package.
    """
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or ()
    for number, backend in enumerate(backends):
        package = PACKAGES.get(backend.get('type'))
        if package and importlib.util.find_spec(package) is None:
            option = f'visualizer.vis_backends.{number}.type'
            raise UserError(
                f'{option}={backend["type"]} needs {package}, which is not installed: '
                f'pip install {package}, or leave it out'
            )


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f'not installed: pip install {package}', **{package: True})


def _add(cfg: Config, backend: dict) -> None:
    backends = cfg.visualizer.vis_backends
    if backend['type'] not in [other['type'] for other in backends]:
        cfg.visualizer.vis_backends = [*backends, backend]


def _logged_in() -> bool:
    """Return True if wandb finds a key without asking for it."""
    if 'WANDB_API_KEY' in os.environ or 'WANDB_IDENTITY_TOKEN_FILE' in os.environ:
        return True
    url = os.environ.get('WANDB_BASE_URL', 'https://api.wandb.ai')
    try:
        known = netrc.netrc(os.environ.get('NETRC'))
    except (OSError, netrc.NetrcParseError):
        return False
    return known.authenticators(urlsplit(url).hostname or '') is not None
