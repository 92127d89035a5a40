"""Configs, checkpoints and logged scalars of a work directory."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from illama_seg.apis.configs import load_config
from illama_seg.errors import MissingFileError
from illama_seg.visualization.curves import METRICS, read_scalars


def find_run(run: Path) -> tuple[Config, Path, list[Path]]:
    """Find config, last checkpoint and scalars in the work dir of a training.

    Raises:
        MissingFileError: if one of them is missing.
    """
    configs, pointer = sorted(run.glob('*.py')), run / 'last_checkpoint'
    scalars = sorted(run.glob('*/vis_data/scalars.json'))
    if not (configs and pointer.is_file() and scalars):
        raise MissingFileError(
            f'{run} is not the work dir of a run: expected its config (*.py), '
            'last_checkpoint and */vis_data/scalars.json, as a training writes them'
        )
    checkpoint = run / Path(pointer.read_text().strip()).name
    if not checkpoint.is_file():
        raise MissingFileError(
            f'{run} has no {checkpoint.name}, the name in its last_checkpoint: put '
            'the file back, or write the name of another one into last_checkpoint'
        )
    return load_config(configs[0], work_dir=run), checkpoint, scalars


Points = list[list[float]]


def runs_in(folder: Path) -> list[Path]:
    """Return the folder if it is a work dir, else the work dirs in it.

    Raises:
        MissingFileError: if there is none.
    """
    if not folder.is_dir():
        raise MissingFileError(f'no folder {folder}')
    runs = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    runs = [run for run in runs if any(run.glob('*/vis_data/scalars.json'))]
    if folder in runs:
        return [folder]
    if not runs:
        raise MissingFileError(
            f'{folder} is no work dir and has none in it: expected '
            '*/vis_data/scalars.json, as a training writes it'
        )
    return runs


def scalars_of(run: Path) -> dict[str, Points]:
    """Read the curves of a run that can be compared."""
    curves = read_scalars(sorted(run.glob('*/vis_data/scalars.json')))
    names = (*METRICS, 'loss', 'soft_mask_rate')
    return {key: points for key, points in curves.items() if key in names}
