r"""UperNet on DINOv3 ViT-B of timm, ADE20K.

python tools/train.py configs/peers/upernet_dinov3_base_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: model.safetensors of https://huggingface.co/timm/vit_base_patch16_dinov3.lvd1689m,
or timm's other files of this model; without the options the weights are random.
A plain ViT with 2-D rotary positions and four register tokens, distilled from a model
trained without labels (arXiv 2508.10104); its licence is its own. The maps are taken
before the final norm. Recipe, neck and decoder are iLLaMA-B's.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmFeatures',
        model_name='vit_base_patch16_dinov3',
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1,
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'reg_token': dict(decay_mult=0.0)})
)
