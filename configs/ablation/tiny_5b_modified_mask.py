r"""Step 5b: the class token first, its row of the causal mask open.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 72.5 top-1, train loss 3.550.
The mask is Eq. 1's, as the paper's text has it. Differs from step 4; step 6 goes on
from step 5.
Mixup 0.8 and CutMix 1.0 are assumed for the basic recipe, as in DeiT's.
Memory: not measured.

8 GPUs: tools/dist_train.sh configs/ablation/tiny_5b_modified_mask.py 8 --amp
1 GPU:  python tools/train.py configs/ablation/tiny_5b_modified_mask.py --amp
"""

_base_ = ['../pretrain/illama_tiny_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='modified',
        cls_position='first',
        with_pos_embed=True,
        with_rotary=False,
    ),
)
custom_hooks = []
