r"""UperNet on iLLaMA-S, ADE20K: the recipe of Table 10 (arXiv 2404.06773).

The paper has no figure for this size. Pretrained: the released
illama-small-in1k-79.9.pth.
Memory: 3.8 GB resident on a CPU with 2 images and bfloat16.

1 GPU:  python tools/train.py configs/upernet_illama_small_ade20k.py \
            --cfg-options train_dataloader.batch_size=16
8 GPUs: tools/dist_train.sh configs/upernet_illama_small_ade20k.py 8
Test:   python tools/test.py configs/upernet_illama_small_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(
            checkpoint='https://huggingface.co/techmonsterwang/iLLaMA/resolve/main/'
            'illama-small-in1k-79.9.pth'
        ),
    ),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384] * 4, channels=384),
    auxiliary_head=dict(in_channels=384),
)
