"""Class tokens on a strictly causal iLLaMA-T, ADE20K: one pass, no UperNet.

python tools/train.py configs/queries/illama_tiny_queries_ade20k.py --amp

See illama_base_queries_ade20k.py. Not trained here: no figure is known.
"""

_base_ = ['../upernet_illama_tiny_ade20k.py']

model = dict(
    backbone=dict(attn_mask='strict', num_queries=150, out_indices=(11,)),
    neck=None,
    auxiliary_head=None,
    decode_head=dict(
        _delete_=True,
        type='ClassTokenHead',
        in_channels=192,
        channels=192,
        num_classes=150,
        dropout_ratio=0.0,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
