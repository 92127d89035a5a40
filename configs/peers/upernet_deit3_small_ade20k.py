r"""UperNet on DeiT III-S of timm, ADE20K.

python tools/train.py configs/peers/upernet_deit3_small_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: model.safetensors of https://huggingface.co/timm/deit3_small_patch16_224.fb_in1k,
or timm's other files of this model; without the options the weights are random.
A plain ViT with a layer scale, trained with a stronger recipe (arXiv 2204.07118). Its
class token has no position. Recipe, neck and decoder are iLLaMA-S's.
"""

_base_ = ['../upernet_illama_small_ade20k.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmFeatures',
        model_name='deit3_small_patch16_224',
        out_indices=(3, 5, 7, 11),
        img_size=512,
        drop_path_rate=0.1,
    )
)
