"""Step 2: LLaMA's feed-forward instead of the MLP.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 74.3 top-1, train loss 3.407.

python tools/train.py configs/ablation/tiny_2_swiglu.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(backbone=dict(ffn='swiglu'))
