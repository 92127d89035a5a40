"""CIFAR at 224x224 (Table 16 gives no size; the models are made for 224).

Training as ImageNet-1K; validation resizes to 224.
"""

_base_ = ['./imagenet_224.py']

test_pipeline = [
    dict(type='LoadRGBImage'),
    dict(
        type='ClsTransform',
        input_size=224,
        interpolation='bicubic',
        crop_pct=1.0,
        crop_mode='squash',
    ),
    dict(type='PackClsInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        data_root='data/cifar',
        split='train',
        pipeline={{_base_.train_pipeline}},
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        data_root='data/cifar',
        split='test',
        pipeline=test_pipeline,
        test_mode=True,
    )
)
test_dataloader = val_dataloader
