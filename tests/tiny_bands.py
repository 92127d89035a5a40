"""Data sets of coloured squares in images that are not 8-bit BGR, and their config."""

import cv2
import numpy as np
import tifffile
from PIL import Image
from tiny_run import ROOT

SIZE = 64, 80
SPLITS = {'train': 4, 'val': 2}
LEVELS = np.array([[30, 200, 60, 90, 220], [180, 40, 120, 210, 20]])  # of two classes

CONFIG = """
_base_ = [
    '{root}/configs/_base_/upernet_illama.py',
    '{root}/configs/_base_/adamw.py',
    '{root}/configs/_base_/default_runtime.py',
]
load = [{loader}]
labels = [dict(type='LoadAnnotations'), dict(type='CheckAnnotations', num_classes=2)]
pack = [dict(type='PackSegInputs')]
train_pipeline = load + labels + [dict(type='RandomCrop', crop_size=(64, 64))] + pack
test_pipeline = load + labels + pack
def dataset(split, pipeline):
    return dict(
        type='CheckedSegDataset',
        data_root='{data}',
        data_prefix=dict(img_path=f'img/{{split}}', seg_map_path=f'ann/{{split}}'),
        img_suffix='{suffix}',
        seg_map_suffix='.png',
        metainfo=dict(classes=('low', 'high'), palette=[[90, 60, 30], [20, 180, 230]]),
        pipeline=pipeline,
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
model = dict(
    data_preprocessor=dict(size=(64, 64), {preprocessor}),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=48, num_layers=4, num_heads=3),
        img_size=64,
        in_channels={channels},
        out_indices=(0, 1, 2, 3),
        init_cfg=None,
    ),
    neck=dict(embed_dim=48),
    decode_head=dict(in_channels=[48] * 4, channels=16, num_classes=2),
    auxiliary_head=None,
    test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(43, 43)),
)
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=2, val_interval=2)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
"""


def scene(split, index, bands, scale=1.0, dtype=np.uint8):
    """Image (H, W, bands) and labels (H, W): a square of class 1; a first row of 255.

    The values, of which 255 is the highest, are multiplied by the scale.
    """
    rng = np.random.default_rng([index, split == 'val'])
    labels = np.zeros(SIZE, np.uint8)
    y, x = rng.integers(4, 30, 2)
    labels[y : y + 30, x : x + 40] = 1
    image = LEVELS[labels][..., :bands] + rng.normal(0, 6, (*SIZE, bands))
    labels[0], image[1, 0] = 255, 255
    return np.clip(image * scale, 0, 255 * scale).astype(dtype), labels


def make_data(root, suffix, bands, scale=1.0, dtype=np.uint8, write=None):
    """Write the splits in the layout of the config."""
    for split, count in SPLITS.items():
        for kind in ('img', 'ann'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image, labels = scene(split, index, bands, scale, dtype)
            path = root / 'img' / split / f'{index}{suffix}'
            if write:
                write(path, image)
            else:
                assert cv2.imwrite(str(path), image)
            Image.fromarray(labels).save(root / 'ann' / split / f'{index}.png')
    return root


def planes(path, image):
    """Write each band as a plane of its own, as many GIS programs do."""
    image = np.moveaxis(image, -1, 0)
    tifffile.imwrite(path, image, photometric='minisblack', planarconfig='separate')


def make_config(path, data, suffix, channels, loader='', preprocessor=''):
    """Write a config; loader and preprocessor are further arguments in Python."""
    path.write_text(
        CONFIG.format(
            root=ROOT,
            data=data,
            suffix=suffix,
            channels=channels,
            loader=f"dict(type='LoadImageFromFile', {loader})",
            preprocessor=preprocessor,
        )
    )
    return path
