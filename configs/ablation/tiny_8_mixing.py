"""Step 8: mixup and CutMix tuned anew.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 74.3 top-1, train loss 2.990.

python tools/train.py configs/ablation/tiny_8_mixing.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(
    data_preprocessor=dict(mixup=0.1, cutmix=0.1),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='last',
        with_rotary=True,
    ),
)
