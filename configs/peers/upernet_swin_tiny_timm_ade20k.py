r"""UperNet on Swin-T of timm, ADE20K.

python tools/train.py configs/peers/upernet_swin_tiny_timm_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: model.safetensors of https://huggingface.co/timm/swin_tiny_patch4_window7_224.ms_in1k,
or timm's other files of this model; without the options the weights are random.
A pyramid of attention in windows (arXiv 2103.14030): its four maps go into the decoder
without a neck, and without the norms of upernet_swin_tiny_ade20k.py, which is mmseg's
Swin-T. Recipe: iLLaMA-B's; 512 channels in the decoder, as in mmseg.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmFeatures',
        model_name='swin_tiny_patch4_window7_224',
        out_indices=(0, 1, 2, 3),
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
