r"""Step 2: LLaMA's feed-forward instead of the MLP.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 82.0 top-1, train loss 2.724.
Mixup 0.8 and CutMix 1.0 are assumed for the basic recipe, as in DeiT's.
Memory: not measured.

8 GPUs: tools/dist_train.sh configs/ablation/base_2_swiglu.py 8 --amp
1 GPU:  python tools/train.py configs/ablation/base_2_swiglu.py --amp
"""

_base_ = ['../pretrain/illama_base_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_pos_embed=True,
        with_rotary=False,
    ),
)
custom_hooks = []
