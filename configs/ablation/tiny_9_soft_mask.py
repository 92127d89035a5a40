"""Step 9: the soft mask: iLLaMA.

Table 17 of arXiv 2404.06773, size T.
Expected (the paper's figure): 75.0 top-1, train loss 2.955.
The mask of Eq. 2 from here on; what is pretrained by configs/pretrain.

python tools/train.py configs/ablation/tiny_9_soft_mask.py --amp
"""

_base_ = ['../pretrain/illama_tiny_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.1, cutmix=0.1),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='soft',
        cls_position='last',
        with_pos_embed=True,
        with_rotary=True,
    ),
)
