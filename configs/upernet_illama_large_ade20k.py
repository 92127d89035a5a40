r"""UperNet on iLLaMA-L, ADE20K: the recipe of Table 10 (arXiv 2404.06773).

The paper has no figure for this size. Pretrained: the released
illama-large-in21kin1k-224-84.8.pth.
Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_large_ade20k.py \
            --cfg-options train_dataloader.batch_size=16
8 GPUs: tools/dist_train.sh configs/upernet_illama_large_ade20k.py 8
Test:   python tools/test.py configs/upernet_illama_large_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        arch='large',
        # Block 3, 5, 7, 11 of 12, at twice the depth.
        out_indices=(7, 11, 15, 23),
        init_cfg=dict(
            checkpoint='https://huggingface.co/techmonsterwang/iLLaMA/resolve/main/'
            'illama-large-in21kin1k-224-84.8.pth'
        ),
    ),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4, channels=1024),
    auxiliary_head=dict(in_channels=1024),
)
