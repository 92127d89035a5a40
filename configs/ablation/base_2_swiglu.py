"""Step 2: LLaMA's feed-forward instead of the MLP.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 82.0 top-1, train loss 2.724.

python tools/train.py configs/ablation/base_2_swiglu.py --amp
"""

_base_ = ['base_1_vit.py']

model = dict(backbone=dict(ffn='swiglu'))
