"""AdamW at Table 10's learning rate and weight decay (arXiv 2404.06773).

Layer-wise learning rate decay, which the paper does not use, is two options:
``--cfg-options optim_wrapper.constructor=LayerDecayConstructor
optim_wrapper.paramwise_cfg.layer_decay_rate=0.75``.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    # All keys that a parameter's name contains apply, not the longest one alone.
    constructor='MergedKeysConstructor',
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
