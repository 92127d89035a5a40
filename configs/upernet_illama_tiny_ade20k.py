r"""UperNet on iLLaMA-T, ADE20K: arXiv 2404.06773, Table 10.

Expected (the paper's figure): 37.7 mIoU with the multi-scale and flip test (--tta),
10.865M parameters. Pretrained: the released illama-tiny-in1k-75.0.pth. Memory: 3.3 GB
on an H100 with 3 images and --amp; 2.9 GB resident on a CPU with 2.

1 GPU:  python tools/train.py configs/upernet_illama_tiny_ade20k.py \
            --cfg-options train_dataloader.batch_size=16
8 GPUs: tools/dist_train.sh configs/upernet_illama_tiny_ade20k.py 8
Test:   python tools/test.py configs/upernet_illama_tiny_ade20k.py CHECKPOINT --tta
"""

_base_ = ['upernet_illama_base_ade20k.py']

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.0,
        init_cfg=dict(
            checkpoint='https://huggingface.co/techmonsterwang/iLLaMA/resolve/main/'
            'illama-tiny-in1k-75.0.pth'
        ),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192] * 4, channels=192),
    auxiliary_head=dict(in_channels=192),
)
