"""Step 3: RMSNorm instead of LayerNorm.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 81.7 top-1, train loss 2.721.

python tools/train.py configs/ablation/base_3_rmsnorm.py --amp
"""

_base_ = ['base_1_vit.py']

model = dict(backbone=dict(ffn='swiglu', norm='rms'))
