r"""UperNet on the plain ViT-B, ADE20K: arXiv 2404.06773, Table 10, the baseline.

Expected (the paper's figure): 47.3 mIoU with the multi-scale and flip test (--tta),
163.29M parameters. Pretrained: DeiT's released file, since the paper's own ViT-B is not
released. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_vit_base_ade20k.py \
            --cfg-options train_dataloader.batch_size=16
8 GPUs: tools/dist_train.sh configs/upernet_vit_base_ade20k.py 8
Test:   python tools/test.py configs/upernet_vit_base_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        ffn='mlp',
        norm='layer',
        attn_mask='bidirectional',
        cls_position='first',
        with_rotary=False,
        init_cfg=dict(
            checkpoint='https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth'
        ),
    )
)
