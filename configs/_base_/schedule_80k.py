"""mmseg's 80k iterations, with the warmup and the linear decay of its ViT recipe.

Batch 16, if the config names no other.
"""

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=80000, val_interval=8000)
auto_scale_lr = dict(enable=False, base_batch_size=16)
