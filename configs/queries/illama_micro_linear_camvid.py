"""A linear head on the strictly causal micro iLLaMA of CIFAR-10, CamVid: the baseline.

python tools/train.py configs/queries/illama_micro_linear_camvid.py

The recipe of upernet_illama_micro_camvid.py in float32; the head has nothing tuned.
"""

_base_ = ['upernet_illama_micro_strict_camvid.py']

model = dict(
    backbone=dict(out_indices=(5,)),
    neck=None,
    auxiliary_head=None,
    decode_head=dict(
        _delete_=True,
        type='LinearHead',
        in_channels=96,
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
