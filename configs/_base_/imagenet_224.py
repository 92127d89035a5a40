"""ImageNet-1K at 224x224.

Training: RandAugment (9 magnitude, 0.5 standard deviation, increasing severity),
bicubic. The colour jitter of 0.4 stands here as in Tables 13, 14 and 16 of arXiv
2404.06773; timm drops it beside RandAugment.
Validation: short side 256, centre crop of 224.
"""

train_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=224,
        is_training=True,
        color_jitter=0.4,
        auto_augment='rand-m9-mstd0.5-inc1',
        interpolation='bicubic',
    ),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadRGBImage'),
    dict(type='ClsTransform', input_size=224, interpolation='bicubic', crop_pct=0.875),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='collate_images'),
    drop_last=True,
    sampler=dict(
        type='SeededSampler', sampler=dict(type='WholeUpdatesSampler', shuffle=True)
    ),
    dataset=dict(
        type='ImageNetDataset',
        data_root='data/imagenet',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='collate_images'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNetDataset',
        data_root='data/imagenet',
        data_prefix='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
