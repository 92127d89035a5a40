"""What every classification run shares: registration, logging, hooks, AdamW, metric.

AdamW as in Tables 13, 14 and 16 of arXiv 2404.06773: betas (0.9, 0.999), eps 1e-8, no
weight decay on one-dimensional parameters, the positional embedding and the class
token.

Only a config's ``effective_batch`` counts for its recipe: tools/train.py accumulates
gradients to reach it from the GPUs that there are, ``train_dataloader.batch_size``
images each, and an epoch has floor(images / effective_batch) updates.
"""

custom_imports = dict(imports=['illama_seg'], allow_failed_imports=False)
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_level = 'INFO'
# 'ShardedRunner' spreads the weights over the GPUs (FSDP).
runner_type = 'Runner'
load_from = None
resume = False
# Every process mixes and erases its images in its own way.
randomness = dict(seed=0, diff_rank_seed=True)
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=2, save_best='accuracy/top1'
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'cls_token': dict(decay_mult=0.0),
        },
    ),
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
