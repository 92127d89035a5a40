"""Step 5: the class token at the end of the sequence.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 80.6 top-1, train loss 2.869.

python tools/train.py configs/ablation/base_5_last_cls.py --amp
"""

_base_ = ['base_1_vit.py']

model = dict(
    backbone=dict(ffn='swiglu', norm='rms', attn_mask='strict', cls_position='last')
)
