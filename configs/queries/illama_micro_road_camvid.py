"""A question to the micro iLLaMA of CamVid's 11 classes: road or not.

python tools/train.py configs/queries/illama_micro_road_camvid.py

One class token, one map of logits. Backbone: illama_micro_queries_camvid.py, seed 0,
frozen; of it 0.8 % are trained.
"""

_base_ = ['illama_micro_categories_camvid.py']

# fmt: off
other = [
    'Sky', 'Building', 'Pole', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car',
    'Pedestrian', 'Bicyclist',
]
# fmt: on
groups = dict(_delete_=True, other=other, road=['Road'])
model = dict(
    backbone=dict(num_queries=1),
    decode_head=dict(
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=dict(use_sigmoid=True),
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckAnnotations', num_classes=2),
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
    dict(type='CheckAnnotations', num_classes=2),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(groups=groups, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(groups=groups, pipeline=test_pipeline))
test_dataloader = val_dataloader
