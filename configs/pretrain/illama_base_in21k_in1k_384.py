"""iLLaMA-B on ImageNet-1K at 384, from ImageNet-21K: arXiv 2404.06773, Table 14.

Expected (the paper's figure): 85.0 top-1. Starts from what illama_base_in21k.py
trained, without its head of 10,450 classes. Memory: not measured.
Batch 512 by gradient accumulation.

1 GPU:  python tools/train.py configs/pretrain/illama_base_in21k_in1k_384.py --amp
8 GPUs: tools/dist_train.sh configs/pretrain/illama_base_in21k_in1k_384.py 8 --amp
Other weights: --cfg-options model.init_cfg.checkpoint=FILE
"""

_base_ = [
    '../_base_/classifier.py',
    '../_base_/imagenet_384.py',
    '../_base_/finetune_30.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(arch='base', img_size=384, drop_path_rate=0.2),
    head=dict(num_classes=1000, in_channels=768),
    init_cfg=dict(
        type='Pretrained', checkpoint='work_dirs/illama_base_in21k/epoch_90.pth'
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1.1e-4, weight_decay=1e-8))
