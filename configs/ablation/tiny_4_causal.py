"""Step 4: the causal mask, class token still first.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 0.1 top-1.
The mask is Eq. 1's, as the paper's text has it. It fails: the class token sees
nothing but itself, so all images look the same.

python tools/train.py configs/ablation/tiny_4_causal.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(backbone=dict(ffn='swiglu', norm='rms', attn_mask='strict'))
