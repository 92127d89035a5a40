"""Step 3: RMSNorm instead of LayerNorm.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 74.5 top-1, train loss 3.406.

python tools/train.py configs/ablation/tiny_3_rmsnorm.py --amp
"""

_base_ = ['tiny_1_vit.py']

model = dict(backbone=dict(ffn='swiglu', norm='rms'))
