"""Step 8: mixup and CutMix tuned anew.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 81.3 top-1, train loss 2.868.

python tools/train.py configs/ablation/base_8_mixing.py --amp
"""

_base_ = ['base_1_vit.py']

model = dict(
    data_preprocessor=dict(mixup=0.95, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='last',
        with_rotary=True,
    ),
)
