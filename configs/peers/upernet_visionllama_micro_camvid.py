"""UperNet on the micro VisionLLaMA of CIFAR-10, CamVid.

python tools/train.py configs/pretrain/visionllama_micro_cifar10.py
python tools/train.py configs/peers/upernet_visionllama_micro_camvid.py \\
    --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
From scratch: --cfg-options model.backbone.init_cfg=None

Expected figure: not measured. Memory: not measured. Recipe of
upernet_illama_micro_camvid.py. Rows and columns are scaled to the 7 x 7 patches of the
pretraining. What differs from the published model: upernet_visionllama_base_ade20k.py.
"""

_base_ = ['../upernet_illama_micro_camvid.py']

model = dict(
    backbone=dict(
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_pos_embed=False,
        rotary_grid='axial',
        rotary_img_size=112,
        init_cfg=dict(checkpoint='work_dirs/visionllama_micro_cifar10/epoch_20.pth'),
    )
)
