"""UperNet on a micro iLLaMA, procedural scenes, minutes on two CPU cores: `make demo`.

python tools/data/make_scenes.py
python tools/train.py configs/upernet_illama_demo.py
python tools/analysis/report.py work_dirs/upernet_illama_demo --baselines
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/scenes.py',
    '_base_/adamw.py',
    '_base_/default_runtime.py',
]

max_iters = 900
# Inverse square roots of the classes' shares of the training pixels.
# fmt: off
class_weight = [
    0.7, 0.4, 0.7, 0.5, 0.6, 0.8, 1.5, 0.9,
    1.3, 1.1, 1.2, 1.1, 1.3, 1.7, 1.0,
]
# fmt: on
# Crops show other parts of the scenes each time, and their attention has 0.4 of the
# scores. Windows of the crop's size keep the raster order, as in training.
crop = (128, 160)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=15),
    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    data_preprocessor=dict(size=crop),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=96, num_layers=6, num_heads=2),
        img_size=crop,
        patch_size=8,
        out_indices=(1, 2, 3, 5),
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(embed_dim=96, rescales=[2, 1, 0.5, 0.25]),
    decode_head=dict(
        in_channels=[96] * 4,
        channels=64,
        num_classes=15,
        dropout_ratio=0.0,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=None,
    test_cfg=dict(crop_size=crop, stride=(32, 48)),
)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=50, end=max_iters
    ),
]
randomness = dict(seed=0)
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=max_iters, val_interval=300)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=300))
