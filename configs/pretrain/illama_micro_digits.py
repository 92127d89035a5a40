"""A micro iLLaMA on scikit-learn's handwritten digits, under a minute on a CPU.

python tools/train.py configs/pretrain/illama_micro_digits.py

1,437 images of 8x8 to train, 360 to test, in patches of 2x2; linear soft
mask over the first half. 95.6 top-1 measured (one run); none of the paper's.
"""

_base_ = ['../_base_/classifier.py', '../_base_/classification_runtime.py']

effective_batch = 64
pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='ClsTransform', input_size=8, crop_pct=1.0),
    dict(type='PackClsInputs'),
]
model = dict(
    data_preprocessor=dict(mixup=0.1, cutmix=0.1, erasing=0.0),
    backbone=dict(
        arch=dict(embed_dims=64, num_layers=4, num_heads=2), img_size=8, patch_size=2
    ),
    head=dict(num_classes=10, in_channels=64),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(
        type='SeededSampler', sampler=dict(type='WholeUpdatesSampler', shuffle=True)
    ),
    dataset=dict(type='DigitsDataset', split='train', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=120,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='DigitsDataset', split='test', pipeline=pipeline, test_mode=True),
)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=2, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=30, val_interval=5)
default_hooks = dict(checkpoint=dict(interval=5))
custom_hooks = [dict(type='SoftMaskHook', mode='linear', cutoff=15)]
