"""A question to the micro iLLaMA of CamVid: the 7 categories of Cityscapes.

python tools/train.py configs/queries/illama_micro_categories_camvid.py

Backbone: illama_micro_queries_camvid.py, seed 0, frozen; of it 0.9 % are trained.
"""

_base_ = ['illama_micro_queries_camvid.py']

groups = dict(
    flat=['Road', 'Pavement'],
    construction=['Building', 'Fence'],
    object=['Pole', 'SignSymbol'],
    nature=['Tree'],
    sky=['Sky'],
    human=['Pedestrian', 'Bicyclist'],
    vehicle=['Car'],
)
model = dict(
    backbone=dict(
        frozen_stages=6,
        num_queries=7,
        init_cfg=dict(checkpoint='models/illama_micro_camvid_queries_seed0.pth'),
    ),
    decode_head=dict(channels=32, num_classes=7, loss_decode=dict(class_weight=None)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=7),
    dict(
        type='RandomResize', scale=(480, 360), ratio_range=(0.8, 2.0), keep_ratio=True
    ),
    dict(type='RandomCrop', crop_size=(288, 384), cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=7),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(groups=groups, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(groups=groups, pipeline=test_pipeline))
test_dataloader = val_dataloader
max_iters = 240
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=24),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=24, end=max_iters
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
