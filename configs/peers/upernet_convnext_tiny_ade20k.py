r"""UperNet on ConvNeXt-T of timm, ADE20K.

python tools/train.py configs/peers/upernet_convnext_tiny_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: model.safetensors of https://huggingface.co/timm/convnext_tiny.fb_in1k,
or timm's other files of this model; without the options the weights are random.
A pyramid of convolutions (arXiv 2201.03545): its four maps go into the decoder without
a neck, and without the norms that mmseg's own puts after them. Recipe: iLLaMA-B's; 512
channels in the decoder, as in mmseg.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmFeatures',
        model_name='convnext_tiny',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
    ),
    neck=None,
    decode_head=dict(in_channels=[96, 192, 384, 768], channels=512),
    auxiliary_head=dict(in_channels=384),
)
