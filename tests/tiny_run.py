"""A data set in ADE20K's layout, small, and the real tools run on it."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import cv2
import numpy as np
import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs' / 'upernet_illama_tiny_ade20k.py'
SIZE = 64, 80
SKY, ROAD, CAR = 3, 7, 21  # ADE20K's own ids
SPLITS = {'training': 4, 'validation': 2}


def make_ade20k(root, size=SIZE):
    """Sky above a road with a car; the first row is not annotated."""
    rng = np.random.default_rng(0)
    height, width = size
    for split, count in SPLITS.items():
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            labels = np.full(size, ROAD, np.uint8)
            labels[: height // 2] = SKY
            x = rng.integers(0, width - 20)
            labels[height // 2 : height // 2 + 12, x : x + 20] = CAR
            image = np.full((*size, 3), 90, np.uint8)
            image[labels == SKY] = 230, 170, 110
            image[labels == CAR] = 40, 40, 200
            image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255)
            labels[0] = 0
            name = f'{split}_{index}'
            cv2.imwrite(str(root / 'images' / split / f'{name}.jpg'), image)
            Image.fromarray(labels).save(root / 'annotations' / split / f'{name}.png')
    return root


def data_options(root):
    splits = ('train', 'val', 'test')
    return [f'{split}_dataloader.dataset.data_root={root}' for split in splits]


def model_options(dims=24):
    """A model of four blocks that takes a fraction of a second."""
    return [
        'model.backbone.arch._delete_=True',
        f'model.backbone.arch.embed_dims={dims}',
        'model.backbone.arch.num_layers=4',
        'model.backbone.arch.num_heads=3',
        'model.backbone.out_indices=(0,1,2,3)',
        'model.backbone.img_size=64',
        'model.backbone.init_cfg=None',
        f'model.neck.embed_dim={dims}',
        f'model.decode_head.in_channels=[{dims},{dims},{dims},{dims}]',
        'model.decode_head.channels=16',
        f'model.auxiliary_head.in_channels={dims}',
        'model.auxiliary_head.channels=16',
        'model.data_preprocessor.size=(64,64)',
        'model.test_cfg.crop_size=(64,64)',
        'model.test_cfg.stride=(43,43)',
    ]


def run_options(iterations=2):
    loaders = [
        f'{split}_dataloader.{option}'
        for split in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ]
    tta = [
        f'tta_pipeline.1.transforms.0.{index}.scale=({width},{width})'
        for index, width in enumerate(range(40, 136, 16))
    ]
    return [
        *loaders,
        *tta,
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.pipeline.3.scale=(80,64)',
        'train_dataloader.dataset.pipeline.4.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(80,64)',
        'test_dataloader.dataset.pipeline.1.scale=(80,64)',
        'test_pipeline.1.scale=(80,64)',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
        f'param_scheduler.1.end={iterations}',
        f'train_cfg.max_iters={iterations}',
        'train_cfg.val_interval=2',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=2',
    ]


def tiny_options(data, iterations=2, dims=24):
    """What follows --cfg-options."""
    return [*data_options(data), *model_options(dims), *run_options(iterations)]


def start_fresh():
    """Forget what mmengine keeps for the life of a process."""
    managers = (SegLocalVisualizer, Visualizer, MMLogger, MessageHub, DefaultScope)
    for manager in managers:
        manager._instance_dict.clear()


def run_tool(tool, *arguments):
    """Run a tool in this process as a program of its own.

    Where it ends with a message and status 2, the message is the exit's code.
    """
    start_fresh()
    path = str(ROOT / 'tools' / f'{tool}.py')
    said = io.StringIO()
    try:
        with (
            mock.patch.object(sys, 'argv', [path, *map(str, arguments)]),
            mock.patch.object(sys, 'path', [str(Path(path).parent), *sys.path]),
            contextlib.redirect_stderr(said),
        ):
            runpy.run_path(path, run_name='__main__')
    except SystemExit as end:
        message = re.search(r'^error: .*', said.getvalue(), re.M | re.S)
        if end.code == 2 and message:
            raise SystemExit(message[0].strip()) from None
        raise
    finally:
        sys.stderr.write(said.getvalue())


def fails(tool, *arguments):
    """Run a tool that must fail with a message, not a traceback; return the message."""
    with pytest.raises(SystemExit) as error:
        run_tool(tool, *arguments)
    message = str(error.value.code)
    assert message.startswith('error: '), message
    return message


def run_python(*arguments, cwd):
    """A new process elsewhere, with the package of this checkout, not another's."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    environment['PYTHONFAULTHANDLER'] = '1'  # an abort says where
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def train_once(base):
    """Train in a process of its own: what the fixture `run` gives."""
    base.mkdir()
    data, work_dir = make_ade20k(base / 'ade20k'), base / 'run'
    options = tiny_options(data)
    command = ['--work-dir', work_dir, '--cfg-options', *options]
    process = run_python(ROOT / 'tools' / 'train.py', CONFIG, *command, cwd=base)
    assert process.returncode == 0, process.stdout + process.stderr
    return SimpleNamespace(
        data=data,
        work_dir=work_dir,
        config=work_dir / CONFIG.name,
        checkpoint=work_dir / 'iter_2.pth',
        log=process.stdout + process.stderr,
    )
