"""CamVid in SegNet's split: 367 training, 101 validation frames (480x360), 11 classes.

Trained at 0.8 to 2 times the native scale, tested at the native one.
"""

data_root = 'data/camvid'
# Inverse square roots of the classes' shares of the training pixels.
class_weight = [0.34, 0.29, 1.42, 0.25, 0.66, 0.45, 1.3, 1.33, 0.58, 1.76, 2.61]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=11),
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
    dict(type='CheckAnnotations', num_classes=11),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(480 * r), int(360 * r)), keep_ratio=True)
                for r in (0.75, 1.0, 1.25, 1.5)
            ],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='CheckAnnotations', num_classes=11)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(
        type='SeededSampler', sampler=dict(type='InfiniteSampler', shuffle=True)
    ),
    dataset=dict(
        type='CamVidDataset',
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CamVidDataset',
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
