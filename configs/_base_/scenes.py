"""Procedural scenes in ADE20K's folder layout, label ids and class names.

python tools/data/make_scenes.py writes them. 15 of the 150 classes occur, and only
these are learned: mmseg maps the labels to the classes named here.
"""

# fmt: off
metainfo = dict(
    classes=(
        'building', 'sky', 'tree', 'road', 'grass', 'sidewalk', 'person', 'mountain',
        'car', 'water', 'house', 'field', 'fence', 'signboard', 'bus',
    )
)
# fmt: on
data_root = 'data/scenes'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=15),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=15),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(
        type='SeededSampler', sampler=dict(type='InfiniteSampler', shuffle=True)
    ),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='images/training', seg_map_path='annotations/training'
        ),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
