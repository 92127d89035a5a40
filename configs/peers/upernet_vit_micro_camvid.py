"""UperNet on the micro plain ViT of CIFAR-10, CamVid.

python tools/train.py configs/pretrain/vit_micro_cifar10.py
python tools/train.py configs/peers/upernet_vit_micro_camvid.py \\
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
From scratch: --cfg-options model.backbone.init_cfg=None

Expected figure: not measured. Memory: not measured. Recipe of
upernet_illama_micro_camvid.py.
"""

_base_ = ['../upernet_illama_micro_camvid.py']

model = dict(
    backbone=dict(
        ffn='mlp',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_rotary=False,
        init_cfg=dict(checkpoint='work_dirs/vit_micro_cifar10/epoch_20.pth'),
    )
)
