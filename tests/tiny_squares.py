"""Coloured squares, and a segmentor of them that trains in a second."""

from unittest import mock

import cv2
import numpy as np
import pytest
from mmengine.hooks import Hook
from tiny_run import ROOT, run_tool, start_fresh

from illama_seg.apis import build_trainer, load_config

COLOURS = [[60, 60, 60], [200, 60, 60], [60, 200, 60], [60, 60, 200], [200, 200, 60]]
SIZE = 64, 80  # of the images; the crops are of 64
CONFIG = """
_base_ = [
    '{root}/configs/_base_/upernet_illama.py',
    '{root}/configs/_base_/adamw.py',
    '{root}/configs/_base_/default_runtime.py',
]
classes = tuple('abcde'[:{classes}])
crop = {crop}
load = [dict(type='LoadImageFromFile')]
labels = [
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes={classes}),
]
pack = [dict(type='PackSegInputs')]
train_pipeline = load + labels + [dict(type='RandomCrop', crop_size=crop)] + pack
test_pipeline = load + labels + pack
def dataset(split, pipeline):
    return dict(
        type='CheckedSegDataset',
        data_root='{data}',
        data_prefix=dict(
            img_path=f'{{split}}/images', seg_map_path=f'{{split}}/labels'
        ),
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=dict(classes=classes, palette={colours}),
        pipeline=pipeline,
        serialize_data=False,  # which collects all garbage of a long test session
    )
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dataset('train', train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dataset('val', test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
head = dict(channels=16, num_classes={classes})
model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, num_layers=4, num_heads=3),
        img_size=crop,
        out_indices=(0, 1, 2, 3),
        init_cfg=None,
    ),
    neck=dict(embed_dim=48),
    decode_head=dict(in_channels=[48] * 4, **head),
    auxiliary_head=dict(in_channels=48, **head),
    test_cfg=dict(mode='slide', crop_size=crop, stride=(32, 32)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=2, end=4),
]
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=4, val_interval=100)
default_hooks = dict(
    checkpoint=dict(interval=2, save_best=None), logger=dict(interval=1)
)
randomness = dict(seed=0)
"""


def make_squares(root, classes=5):
    """Four images to train on and two to test, of 64 x 80, with one square each."""
    rng = np.random.default_rng(0)
    for split, count in dict(train=4, val=2).items():
        for kind in ('images', 'labels'):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            labels = np.zeros(SIZE, np.uint8)
            top, left = rng.integers(0, 30, 2)
            labels[top : top + 30, left : left + 30] = 1 + index % (classes - 1)
            image = np.array(COLOURS, np.uint8)[labels]
            name = f'{index}.png'
            cv2.imwrite(str(root / split / 'images' / name), image)
            cv2.imwrite(str(root / split / 'labels' / name), labels)
    return root


def write_config(path, data, classes=5, crop=(64, 64)):
    """A config of a segmentor of the squares."""
    text = CONFIG.format(
        root=ROOT, data=data, classes=classes, crop=crop, colours=COLOURS[:classes]
    )
    path.write_text(text)
    return path


def train(config, work_dir, *options, flags=()):
    """Run tools/train.py here; return the log of this run."""
    more = ['--cfg-options', *options] if options else []
    run_tool('train', config, '--work-dir', work_dir, *flags, *more)
    return log_of(work_dir)


def log_of(work_dir):
    """Text of the last log in a work dir."""
    return sorted(work_dir.glob('*/*.log'))[-1].read_text()


def block_of(log):
    """Rows of the block before the first iteration, by name."""
    lines = log.rpartition('train data ')[2].partition('-' * 72)[0].splitlines()
    return {line[:15].strip(): line[15:] for line in lines[1:]}


class Began(Exception):
    """Ends a run where its first iteration would begin."""


class AtFirst(Hook):
    """Raises it, after all other hooks."""

    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise Began


def begin(config, work_dir, resume=False, amp=False, **options):
    """Build a training and stop before its first iteration: the runner, the log."""
    start_fresh()
    options = {key.replace('__', '.'): value for key, value in options.items()}
    options.setdefault('default_hooks.rehearsal.num_images', 0)
    with unformatted(), mock.patch('mmengine.runner.runner.collect_env', dict):
        runner = build_trainer(load_config(config, options, work_dir), amp, resume)
        runner.register_hook(AtFirst())
        with pytest.raises(Began):
            runner.train()
    return runner, log_of(work_dir)


def unformatted():
    """Leave out the layout of configs in the log: most of a second for a run."""
    keep = 'yapf.yapflib.yapf_api.FormatCode'
    return mock.patch(keep, lambda text, **style: (text, False))


def weights_of(runner):
    """Weights of a runner's model."""
    model = runner.model
    return {key: value.clone() for key, value in model.state_dict().items()}
