r"""UperNet on iLLaMA-B, Pascal VOC 2012 with SBD, 512x512.

mmseg's crop and 40k iterations, Table 10's learning rate and weight decay (arXiv
2404.06773, which has no figure for this data set), batch 16.
Pretrained: the released illama-base-in1k-81.6.pth.
Expected: not measured. Memory: not measured.

1 GPU:  python tools/train.py configs/upernet_illama_base_voc12aug.py \
            --cfg-options train_dataloader.batch_size=16
4 GPUs: tools/dist_train.sh configs/upernet_illama_base_voc12aug.py 4
Test:   python tools/test.py configs/upernet_illama_base_voc12aug.py \
            CHECKPOINT --tta
"""

_base_ = [
    '_base_/upernet_illama.py',
    '_base_/voc12aug.py',
    '_base_/adamw.py',
    '_base_/default_runtime.py',
]

model = dict(decode_head=dict(num_classes=21), auxiliary_head=dict(num_classes=21))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=40000),
]
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=40000, val_interval=4000)
default_hooks = dict(checkpoint=dict(interval=4000))
auto_scale_lr = dict(enable=False, base_batch_size=16)
