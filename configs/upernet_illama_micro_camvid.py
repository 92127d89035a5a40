"""UperNet on the micro iLLaMA of CIFAR-10, CamVid: what does the pretraining help?

python tools/train.py configs/pretrain/illama_micro_cifar10.py
python tools/train.py configs/upernet_illama_micro_camvid.py \
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
From scratch: --cfg-options model.backbone.init_cfg=None
"""

_base_ = ['upernet_illama_tiny_camvid.py']

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=96, num_layers=6, num_heads=3),
        out_indices=(1, 2, 3, 5),
        init_cfg=dict(
            _delete_=True,
            type='Pretrained',
            checkpoint='work_dirs/illama_micro_cifar10/epoch_20.pth',
        ),
    ),
    neck=dict(embed_dim=96),
    decode_head=dict(in_channels=[96] * 4),
    auxiliary_head=dict(in_channels=96),
)
