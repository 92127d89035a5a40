"""Shared settings of classification runs: registration, logging, hooks, AdamW, metric.

AdamW as in Tables 13, 14 and 16 of arXiv 2404.06773: betas (0.9, 0.999), eps 1e-8, no
weight decay on one-dimensional parameters, the positional embedding and the class
token.

A recipe's batch is its config's ``effective_batch``: the training loop accumulates
gradients to reach it with the GPUs that there are, ``train_dataloader.batch_size``
images each, and an epoch has floor(images / effective_batch) updates.
"""

custom_imports = dict(
    imports=['illama_seg', 'illama_seg.apis.runs.overview'],
    allow_failed_imports=False,
)
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
    logger=dict(type='SafeLoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook',
        interval=1,
        max_keep_ckpts=2,
        save_best='accuracy/top1',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Fit the file of load_from to the model; say what became of every key.
    initial_weights=dict(type='InitialWeightsHook'),
    # Resume from the newest whole checkpoint, at the same sample.
    resume=dict(type='ResumeHook'),
    finite_loss=dict(type='FiniteLossHook'),
    # Share of the training images that may be unreadable; at 0 the first one stops.
    corrupt_images=dict(type='CorruptImagesHook', limit=0.0),
    # A step and a validation of so many images before the first iteration; 0 for none.
    rehearsal=dict(type='RehearsalHook', num_images=2),
    # Save and exit at SIGTERM or SIGUSR1.
    interruption=dict(type='InterruptionHook'),
    # Checkpoints of tensors and plain data only.
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    # Log what runs, before the first iteration.
    overview=dict(type='OverviewHook'),
)
optim_wrapper = dict(
    type='OptimWrapper',
    # All keys that a parameter's name contains apply, not the longest one alone.
    constructor='MergedKeysConstructor',
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
