"""A micro VisionLLaMA (arXiv 2403.00522) beside illama_micro_cifar10.py, which see.

python tools/train.py configs/pretrain/visionllama_micro_cifar10.py

The class token is read, as published. What differs from the published model:
configs/peers/upernet_visionllama_base_ade20k.py.
"""

_base_ = ['illama_micro_cifar10.py']

model = dict(
    backbone=dict(
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_pos_embed=False,
        rotary_grid='axial',
    )
)
custom_hooks = []
