"""Fine-tuning on ImageNet-1K: Table 14 of arXiv 2404.06773.

30 epochs of batch 512, cosine without warmup to 1e-6, no mixing, no soft mask.
"""

effective_batch = 512
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=0, eta_min=1e-6, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochTrainLoop', max_epochs=30)
