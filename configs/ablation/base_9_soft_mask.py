"""Step 9: the soft mask: iLLaMA.

Table 17 of arXiv 2404.06773, size B.
Expected (the paper's figure): 81.6 top-1, train loss 2.828.
The mask of Eq. 2 from here on; what is pretrained by configs/pretrain.

python tools/train.py configs/ablation/base_9_soft_mask.py --amp
"""

_base_ = ['../pretrain/illama_base_in1k.py']

model = dict(
    data_preprocessor=dict(mixup=0.95, cutmix=1.0),
    backbone=dict(
        ffn='swiglu',
        norm='rms',
        attn_mask='soft',
        cls_position='last',
        with_pos_embed=True,
        with_rotary=True,
    ),
)
