r"""Step 4: the causal mask, class token still first.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 0.1 top-1.
The mask is Eq. 1's, as the paper's text has it. It fails: the class token sees
nothing but itself, so all images look the same.
Mixup 0.8 and CutMix 1.0 are assumed for the basic recipe, as in DeiT's.
Memory: not measured.

8 GPUs: tools/dist_train.sh configs/ablation/tiny_4_causal.py 8 --amp
1 GPU:  python tools/train.py configs/ablation/tiny_4_causal.py --amp
"""

_base_ = ['../pretrain/illama_tiny_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='strict',
        cls_position='first',
        with_pos_embed=True,
        with_rotary=False,
    ),
)
custom_hooks = []
