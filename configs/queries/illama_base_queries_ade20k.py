"""Class tokens on a strictly causal iLLaMA-Base, ADE20K: one pass, no UperNet.

python tools/train.py configs/queries/illama_base_queries_ade20k.py --amp

Each of the 150 classes is a query, another class token that reads the image; a patch is
compared with all of them (docs/decoder.md). The released weights were trained with the
soft mask of rate 0 (Eq. 2); here they go on with Eq. 1, which reads images in bands.
Not trained here: no figure is known. UperNet's recipe, Table 10.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(attn_mask='strict', num_queries=150, out_indices=(11,)),
    neck=None,
    auxiliary_head=None,
    decode_head=dict(
        _delete_=True,
        type='ClassTokenHead',
        in_channels=768,
        channels=768,
        num_classes=150,
        dropout_ratio=0.0,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
)
