"""Class tokens on the strictly causal micro iLLaMA of CIFAR-10, 40 frames of CamVid.

python tools/train.py configs/queries/illama_micro_queries_camvid40_full.py

All weights are trained. Frames and recipe of configs/little_data/, in float32.
"""

_base_ = ['../little_data/upernet_illama_micro_camvid40_full.py']

model = dict(
    backbone=dict(
        attn_mask='strict',
        num_queries=11,
        out_indices=(5,),
        init_cfg=dict(
            checkpoint='models/illama_micro_cifar10_strict_seed0.safetensors'
        ),
    ),
    neck=None,
    auxiliary_head=None,
    decode_head=dict(
        _delete_=True,
        type='ClassTokenHead',
        in_channels=96,
        channels=32,
        num_classes=11,
        dropout_ratio=0.0,
        align_corners=False,
        loss_decode=dict(
            type='CrossEntropyLoss',
            use_sigmoid=False,
            loss_weight=1.0,
            class_weight={{_base_.class_weight}},
        ),
    ),
)
optim_wrapper = dict(type='OptimWrapper')
