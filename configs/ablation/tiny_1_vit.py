"""Step 1: the plain ViT, basic recipe.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 73.8 top-1, train loss 3.451.
Mixup 0.8 and CutMix 1.0 are assumed for the basic recipe, as in DeiT's.

python tools/train.py configs/ablation/tiny_1_vit.py --amp
"""

_base_ = ['../pretrain/illama_tiny_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(
        ffn='mlp',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_pos_embed=True,
        with_rotary=False,
    ),
)
custom_hooks = []
