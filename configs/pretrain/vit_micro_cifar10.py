"""The plain ViT (step 1 of Table 17) beside illama_micro_cifar10.py, which see.

python tools/train.py configs/pretrain/vit_micro_cifar10.py
"""

_base_ = ['illama_micro_cifar10.py']

model = dict(
    backbone=dict(
        ffn='mlp',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_rotary=False,
    )
)
custom_hooks = []
