"""A micro iLLaMA on CIFAR-10 from scratch, an hour on two CPU cores at most.

python tools/train.py configs/pretrain/illama_micro_cifar10.py

0.7M parameters. The images are enlarged to 112x112, so that the patches are those of
the segmentation configs, 16x16: 7 x 7 of them. Linear soft mask over the first half.
"""

_base_ = [
    '../_base_/classifier.py',
    '../_base_/cifar_224.py',
    '../_base_/classification_runtime.py',
]

effective_batch = 64
train_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=112,
        is_training=True,
        scale=(0.5, 1.0),
        color_jitter=None,
        interpolation='bicubic',
    ),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=112,
        interpolation='bicubic',
        crop_pct=1.0,
        crop_mode='squash',
    ),
    dict(type='PackClsInputs'),
]
model = dict(
    data_preprocessor=dict(erasing=0.0),
    backbone=dict(arch=dict(embed_dims=96, num_layers=6, num_heads=3), img_size=112),
    head=dict(num_classes=10, in_channels=96),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(type='CIFAR10Dataset', pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=1, dataset=dict(type='CIFAR10Dataset', pipeline=test_pipeline)
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(lr=1.5e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=2, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=20, val_interval=1)
custom_hooks = [dict(type='SoftMaskHook', mode='linear', cutoff=10)]
