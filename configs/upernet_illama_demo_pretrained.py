"""A quarter of the demo's training, from a classifier's weights: `make pretrain-demo`.

python tools/train.py configs/pretrain/illama_micro_scenes.py
python tools/train.py configs/upernet_illama_demo_pretrained.py

The classifier saw 64x64 pixels, this sees 128x160: the positional embedding is resized.
From scratch: --cfg-options model.backbone.init_cfg=None
"""

_base_ = ['upernet_illama_demo.py']

max_iters = 240
model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/illama_micro_scenes/epoch_12.pth',
        )
    )
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=50),
    dict(
        type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=50, end=max_iters
    ),
]
train_cfg = dict(max_iters=max_iters, val_interval=40)
