"""Shared settings of segmentation runs: registration, logging, hooks, tests."""

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
# Only distributed runs convert: BatchNorm stays what it is on a CPU or one GPU.
sync_bn = 'torch'
visualizer = dict(
    type='SegLocalVisualizer',
    vis_backends=[dict(type='LocalVisBackend')],
    name='visualizer',
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
# 'ShardedRunner' spreads the weights over the GPUs (FSDP).
runner_type = 'Runner'
load_from = None
resume = False
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='SafeLoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='SafeCheckpointHook',
        by_epoch=False,
        interval=16000,
        max_keep_ckpts=2,
        save_best='mIoU',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
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
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
tta_model = dict(type='AveragingTTAModel')
