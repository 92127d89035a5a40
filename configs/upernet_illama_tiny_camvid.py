"""UperNet on iLLaMA-T, CamVid, from scratch on two CPU cores.

python tools/train.py configs/upernet_illama_tiny_camvid.py
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/camvid.py',
    '_base_/default_runtime.py',
]
max_iters = 4000
model = dict(
    data_preprocessor=dict(size=(288, 384)),
    backbone=dict(
        arch='tiny', img_size=(352, 480), drop_path_rate=0.0, init_cfg=None
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192] * 4, channels=192, num_classes=11),
    auxiliary_head=dict(in_channels=192, num_classes=11),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    type='BFloat16OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        custom_keys={'pos_embed': dict(decay_mult=0.0), 'cls_token': dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=200),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=200, end=max_iters
    ),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
