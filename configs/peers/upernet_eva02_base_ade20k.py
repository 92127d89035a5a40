r"""UperNet on EVA-02-B of timm, ADE20K.

python tools/train.py configs/peers/upernet_eva02_base_ade20k.py \
    --cfg-options model.backbone.init_cfg.type=Pretrained \
    model.backbone.init_cfg.checkpoint=FILE

Expected figure: not measured. Memory: not measured.
FILE: model.safetensors of https://huggingface.co/timm/eva02_base_patch14_448.mim_in22k_ft_in22k_in1k,
or timm's other files of this model; without the options the weights are random.
A ViT with SwiGLU, 2-D rotary and learnable positions (arXiv 2303.11331). Its patches
have 14 pixels: a crop of 512 is padded to 518, 37 x 37 patches. Mean and deviation of
the pixels are its own. Else recipe, neck and decoder are iLLaMA-B's.
"""

_base_ = ['../upernet_illama_base_ade20k.py']

model = dict(
    data_preprocessor=dict(
        mean=[122.7709, 116.7460, 104.0937], std=[68.5005, 66.6322, 70.3232]
    ),
    backbone=dict(
        _delete_=True,
        type='TimmFeatures',
        model_name='eva02_base_patch14_448',
        out_indices=(3, 5, 7, 11),
        img_size=518,
        drop_path_rate=0.1,
    ),
)
