"""Step 5b: the class token first, its row of the causal mask open.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 72.5 top-1, train loss 3.550.
Differs from step 4; step 6 goes on from step 5.

python tools/train.py configs/ablation/tiny_5b_modified_mask.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(backbone=dict(ffn='swiglu', norm='rms', attn_mask='modified'))
