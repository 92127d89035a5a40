"""Class tokens on a micro iLLaMA that reads rows as they arrive: `make stream-demo`.

python tools/data/make_scenes.py
python tools/train.py configs/queries/illama_demo_queries.py
python tools/stream.py configs/queries/illama_demo_queries.py CHECKPOINT IMAGE

A patch sees the 12 rows of patches above its own; positions are learnt of the columns
alone: a scene may have any number of rows.
"""

_base_ = ['../upernet_illama_demo.py']

model = dict(
    backbone=dict(
        attn_mask='chunked',
        chunk_rows=1,
        memory_rows=12,
        pos_axes='columns',
        num_queries=15,
        out_indices=(5,),
    ),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='ClassTokenHead',
        in_channels=96,
        channels=96,
        num_classes=15,
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
