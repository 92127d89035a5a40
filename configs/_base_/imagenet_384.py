"""ImageNet-1K at 384x384; validation warps the image to the square."""

_base_ = ['./imagenet_224.py']

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
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
