"""ImageNet-1K at 384x384.

Training: RandAugment (9 magnitude, 0.5 standard deviation, increasing severity),
bicubic. The colour jitter of 0.4 stands here as in Tables 13, 14 and 16 of arXiv
2404.06773; timm drops it beside RandAugment.
Validation: the image warped to the square.
"""

train_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=384,
        is_training=True,
        color_jitter=0.4,
        auto_augment='rand-m9-mstd0.5-inc1',
        interpolation='bicubic',
    ),
    dict(type='PackClsInputs'),
]
test_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=384,
        interpolation='bicubic',
        crop_pct=1.0,
        crop_mode='squash',
    ),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    batch_size=32,
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
    batch_size=32,
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
