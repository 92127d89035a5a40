r"""Step 7: learnable positions beside the rotary ones.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 81.2 top-1, train loss 2.839.
The mask is Eq. 1's, as the paper's text has it.
Mixup 0.8 and CutMix 1.0 are assumed for the basic recipe, as in DeiT's.
Memory: not measured.

8 GPUs: tools/dist_train.sh configs/ablation/base_7_pos_embed.py 8 --amp
1 GPU:  python tools/train.py configs/ablation/base_7_pos_embed.py --amp
"""

_base_ = ['../pretrain/illama_base_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='last',
        with_pos_embed=True,
        with_rotary=True,
    ),
)
custom_hooks = []
