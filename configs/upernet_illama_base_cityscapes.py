r"""UperNet on iLLaMA-B, Cityscapes, 512x1024.

mmseg's crop and 80k iterations, Table 10's learning rate and weight decay (arXiv
2404.06773, which has no figure for this data set), batch 8.
Pretrained: the released illama-base-in1k-81.6.pth.
Expected: not measured. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_base_cityscapes.py \
            --cfg-options train_dataloader.batch_size=8
4 GPUs: tools/dist_train.sh configs/upernet_illama_base_cityscapes.py 4
Test:   python tools/test.py configs/upernet_illama_base_cityscapes.py \
            CHECKPOINT --tta
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/cityscapes.py',
    '_base_/adamw.py',
    '_base_/schedule_80k.py',
    '_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(img_size=(512, 1024)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
    test_cfg=dict(crop_size=(512, 1024), stride=(256, 512)),
)
default_hooks = dict(checkpoint=dict(interval=8000))
auto_scale_lr = dict(base_batch_size=8)
