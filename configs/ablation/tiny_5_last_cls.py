"""Step 5: the class token at the end of the sequence.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 71.9 top-1, train loss 3.599.

python tools/train.py configs/ablation/tiny_5_last_cls.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(
    backbone=dict(ffn='swiglu', norm='rms', attn_mask='strict', cls_position='last')
)
