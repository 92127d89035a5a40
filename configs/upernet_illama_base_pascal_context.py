r"""UperNet on iLLaMA-B, Pascal Context of 60 classes, 480x480.

mmseg's crop and 80k iterations, Table 10's learning rate and weight decay (arXiv
2404.06773, which has no figure for this data set), batch 16.
Pretrained: the released illama-base-in1k-81.6.pth.
Expected: not measured. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_base_pascal_context.py \
            --cfg-options train_dataloader.batch_size=16
4 GPUs: tools/dist_train.sh configs/upernet_illama_base_pascal_context.py 4
Test:   python tools/test.py configs/upernet_illama_base_pascal_context.py \
            CHECKPOINT --tta
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/pascal_context.py',
    '_base_/adamw.py',
    '_base_/schedule_80k.py',
    '_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(480, 480)),
    backbone=dict(img_size=(480, 480)),
    decode_head=dict(num_classes=60),
    auxiliary_head=dict(num_classes=60),
    test_cfg=dict(crop_size=(480, 480), stride=(320, 320)),
)
default_hooks = dict(checkpoint=dict(interval=8000))
