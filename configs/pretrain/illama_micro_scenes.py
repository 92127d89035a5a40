"""A micro iLLaMA on crops of procedural scenes: what is in the middle?

python tools/data/make_scene_crops.py
python tools/train.py configs/pretrain/illama_micro_scenes.py

The backbone is that of upernet_illama_demo.py, which takes its checkpoint; linear soft
mask over the first half. The first half of `make pretrain-demo`.
"""

_base_ = ['../_base_/classifier.py', '../_base_/classification_runtime.py']

effective_batch = 64
train_pipeline = [
    dict(type='LoadRGBImage'),
    # The class is that of the middle: a crop of the crop would move it.
    dict(
        type='ClsTransform',
        input_size=64,
        is_training=True,
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        color_jitter=None,
    ),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='ClsTransform', input_size=64, crop_pct=1.0),
    dict(type='PackClsInputs'),
]
model = dict(
    data_preprocessor=dict(erasing=0.0),
    backbone=dict(
        arch=dict(embed_dims=96, num_layers=6, num_heads=2), img_size=64, patch_size=8
    ),
    head=dict(num_classes=15, in_channels=96),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(
        type='SeededSampler', sampler=dict(type='WholeUpdatesSampler', shuffle=True)
    ),
    dataset=dict(
        type='ImageFolderDataset',
        data_root='data/scene_crops',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageFolderDataset',
        data_root='data/scene_crops',
        data_prefix='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=1, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=12, val_interval=2)
default_hooks = dict(logger=dict(interval=20))
custom_hooks = [dict(type='SoftMaskHook', mode='linear', cutoff=6)]
