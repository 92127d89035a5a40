"""UperNet on the micro iLLaMA of CIFAR-10, 40 frames of CamVid: all weights trained.

python tools/train.py configs/little_data/upernet_illama_micro_camvid40_full.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT

One of four ways that docs/little_data.md compares; the other configs of this folder
change one part of it. Frame i of the 40 is frame 367 i / 40, rounded down, of the 367
in the order of their names: evenly spaced, since neighbours of a video are alike.
"""

_base_ = [
    '../_base_/upernet_illama.py',
    '../_base_/camvid.py',
    '../_base_/adamw.py',
    '../_base_/default_runtime.py',
]

max_iters = 240
model = dict(
    data_preprocessor=dict(size=(288, 384)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=96, num_layers=6, num_heads=3),
        img_size=(288, 384),
        out_indices=(1, 2, 3, 5),
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/illama_micro_cifar10/epoch_20.pth'),
    ),
    neck=dict(embed_dim=96),
    decode_head=dict(
        in_channels=[96] * 4,
        channels=96,
        num_classes=11,
        loss_decode=dict(class_weight={{_base_.class_weight}}),
    ),
    auxiliary_head=dict(in_channels=96, num_classes=11),
    test_cfg=dict(mode='slide', crop_size=(288, 384), stride=(72, 96)),
)
train_dataloader = dict(
    batch_size=4, dataset=dict(indices=[367 * i // 40 for i in range(40)])
)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=24),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=24, end=max_iters
    ),
]
train_cfg = dict(
    type='ResumableIterTrainLoop', max_iters=max_iters, val_interval=max_iters
)
default_hooks = dict(
    checkpoint=dict(interval=max_iters, max_keep_ckpts=1, save_best=None),
    logger=dict(interval=10),
)
