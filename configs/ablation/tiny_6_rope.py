"""Step 6: rotary positions instead of learnable ones.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 72.6 top-1, train loss 3.618.
Its predecessor is step 5.

python tools/train.py configs/ablation/tiny_6_rope.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='last',
        with_pos_embed=False,
        with_rotary=True,
    )
)
