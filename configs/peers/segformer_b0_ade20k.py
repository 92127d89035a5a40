r"""mmseg's SegFormer-B0, ADE20K.

python tools/train.py configs/peers/segformer_b0_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: mit_b0_20220624-7e0fe6dd.pth of mmseg's model zoo, segformer;
without the options the weights are random.
A pyramid of attention to fewer keys, and a decoder of linear layers alone (arXiv
2105.15203). Recipe: iLLaMA-B's; mmseg's own gives the decoder ten times the learning
rate.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixVisionTransformer',
        embed_dims=32,
        num_layers=(2, 2, 2, 2),
        num_heads=(1, 2, 5, 8),
        drop_path_rate=0.1,
    ),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[32, 64, 160, 256],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg={{_base_.norm_cfg}},
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
