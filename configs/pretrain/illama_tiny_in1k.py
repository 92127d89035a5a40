"""iLLaMA-T on ImageNet-1K at 224: arXiv 2404.06773, Table 13, column IN-1K, T.

Expected (the paper's figure): 75.0 top-1. Memory: not measured.
Batch 4096 by gradient accumulation.

1 GPU:  python tools/train.py configs/pretrain/illama_tiny_in1k.py --amp
8 GPUs: tools/dist_train.sh configs/pretrain/illama_tiny_in1k.py 8 --amp
"""

_base_ = [
    '../_base_/classifier.py',
    '../_base_/imagenet_224.py',
    '../_base_/classification_runtime.py',
]

effective_batch = 4096
model = dict(
    data_preprocessor=dict(mixup=0.1, cutmix=0.1),
    backbone=dict(arch='tiny', drop_path_rate=0.0),
    head=dict(num_classes=1000, in_channels=192),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=5, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=300)
custom_hooks = [dict(type='SoftMaskHook', mode='constant', cutoff=50)]
