"""Step 6: rotary positions instead of learnable ones.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 81.2 top-1, train loss 2.861.
Its predecessor is step 5.

python tools/train.py configs/ablation/base_6_rope.py --amp
"""

_base_ = ['base_1_vit.py']

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
