"""Step 5b: the class token first, its row of the causal mask open.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 80.4 top-1, train loss 2.857.
Differs from step 4; step 6 goes on from step 5.

python tools/train.py configs/ablation/base_5b_modified_mask.py --amp
"""

_base_ = ['base_1_vit.py']

model = dict(backbone=dict(ffn='swiglu', norm='rms', attn_mask='modified'))
