"""iLLaMA-L on ImageNet-21K-P at 224: arXiv 2404.06773, Table 13, column IN-21K.

Expected (the paper's figure): 47.4 top-1 on ImageNet-21K-P. Memory: not measured.
Batch 4096 by gradient accumulation.

1 GPU:  python tools/train.py configs/pretrain/illama_large_in21k.py --amp
8 GPUs: tools/dist_train.sh configs/pretrain/illama_large_in21k.py 8 --amp
"""

_base_ = [
    '../_base_/classifier.py',
    '../_base_/imagenet21k_224.py',
    '../_base_/classification_runtime.py',
]

effective_batch = 4096
model = dict(
    data_preprocessor=dict(mixup=0.8, cutmix=1.0),
    backbone=dict(arch='large', drop_path_rate=0.1),
    head=dict(num_classes=10450, in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=0.01))
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=5, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=90, val_interval=10)
custom_hooks = [dict(type='SoftMaskHook', mode='constant', cutoff=30)]
