"""UperNet on iLLaMA-B, CamVid, from the released ImageNet weights, on a GPU.

python tools/data/prepare_camvid.py FOLDER_OR_ARCHIVE
python tools/train.py configs/upernet_illama_base_camvid.py --amp
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/camvid.py',
    '_base_/adamw.py',
    '_base_/default_runtime.py',
]

max_iters = 8000
model = dict(
    data_preprocessor=dict(size=(288, 384)),
    backbone=dict(img_size=(288, 384)),
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
    auxiliary_head=dict(num_classes=11),
    test_cfg=dict(crop_size=(288, 384), stride=(72, 96)),
)
train_dataloader = dict(batch_size=16, num_workers=8)
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='LayerDecayConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=400),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=400, end=max_iters
    ),
]
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=max_iters, val_interval=1000)
default_hooks = dict(checkpoint=dict(interval=1000))
