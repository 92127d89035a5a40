r"""UperNet on iLLaMA-T, COCO-Stuff 164k, 512x512.

mmseg's crop and 160k iterations, Table 10's learning rate and weight decay (arXiv
2404.06773, which has no figure for this data set), batch 16.
Pretrained: the released illama-tiny-in1k-75.0.pth.
Expected: not measured. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_tiny_coco_stuff164k.py \
            --cfg-options train_dataloader.batch_size=16
4 GPUs: tools/dist_train.sh configs/upernet_illama_tiny_coco_stuff164k.py 4
Test:   python tools/test.py configs/upernet_illama_tiny_coco_stuff164k.py \
            CHECKPOINT --tta
"""

_base_ = ['upernet_illama_base_coco_stuff164k.py']

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
