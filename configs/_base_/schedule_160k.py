"""mmseg's ViT recipe: 160k iterations of batch 16, warmup, then linear decay.

arXiv 2404.06773 gives crop, learning rate and weight decay (Table 10), no schedule.
"""

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='ResumableIterTrainLoop', max_iters=160000, val_interval=16000)
auto_scale_lr = dict(enable=False, base_batch_size=16)
