"""UperNet on the micro iLLaMA of CIFAR-10, CamVid: what does the pretraining help?

python tools/train.py configs/upernet_illama_micro_camvid.py
From scratch: --cfg-options model.backbone.init_cfg=None
The checkpoint is of configs/pretrain/illama_micro_cifar10.py.
"""

_base_ = ['upernet_illama_tiny_camvid.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=96, num_layers=6, num_heads=3),
        out_indices=(1, 2, 3, 5),
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='models/illama_micro_cifar10_linear_seed0.safetensors',
        ),
    ),
    neck=dict(embed_dim=96),
    decode_head=dict(in_channels=[96] * 4),
    auxiliary_head=dict(in_channels=96),
)
