"""mmseg's ViT recipe: 160k iterations of batch 16, AdamW, warmup, then linear decay.

arXiv 2404.06773 gives crop, learning rate and weight decay (Table 10), no schedule.
Layer-wise learning rate decay, which the paper does not use, is two options:
``--cfg-options optim_wrapper.constructor=LayerDecayConstructor
optim_wrapper.paramwise_cfg.layer_decay_rate=0.75``.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # flat: biases and the weights of every norm; norm_decay_mult overlooks RMSNorm.
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'cls_token': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
auto_scale_lr = dict(enable=False, base_batch_size=16)
