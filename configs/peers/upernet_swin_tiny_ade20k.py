r"""UperNet on mmseg's Swin-T, ADE20K.

python tools/train.py configs/peers/upernet_swin_tiny_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: swin_tiny_patch4_window7_224_20220317-1cdeb081.pth of mmseg's model zoo, swin;
without the options the weights are random.
A pyramid of attention in windows (arXiv 2103.14030), a norm after each map. Recipe:
iLLaMA-B's, where mmseg's config has a stochastic depth of 0.3.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
        drop_path_rate=0.1,
    ),
    neck=None,
    decode_head=dict(in_channels=[96, 192, 384, 768], channels=512),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)}
    )
)
