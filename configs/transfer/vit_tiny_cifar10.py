"""The plain ViT-T on CIFAR-10: arXiv 2404.06773, Table 16, the baseline.

Expected (the paper's figure): 98.0 top-1.
Assumed: as in illama_tiny_cifar10.py, which see; it starts from DeiT's released file,
since the paper's own ViT-T is not released. No soft mask.
Memory: not measured. Batch 1024 by gradient accumulation.

1 GPU:  python tools/train.py configs/transfer/vit_tiny_cifar10.py --amp
8 GPUs: tools/dist_train.sh configs/transfer/vit_tiny_cifar10.py 8 --amp
"""

_base_ = ['illama_tiny_cifar10.py']

model = dict(
    backbone=dict(
        ffn='mlp',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_rotary=False,
    ),
    init_cfg=dict(
        checkpoint='https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth'
    ),
)
custom_hooks = []
