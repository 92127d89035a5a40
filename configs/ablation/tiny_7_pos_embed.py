"""Step 7: learnable positions beside the rotary ones.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 73.2 top-1, train loss 3.531.

python tools/train.py configs/ablation/tiny_7_pos_embed.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='last',
        with_rotary=True,
    )
)
