"""What two CPU processes compute together, over gloo: run by torchrun.

test_two_processes.py starts it once, and calls the same functions alone, for what to be
equal to. tools/train.py joins its processes as test_distributed.py has it.
"""

import os
import shutil
import sys
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dist import get_dist_info
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn
from yapf.yapflib import yapf_api

sys.path.append(str(Path(__file__).parents[1]))
from tiny_run import CONFIG, ROAD, ROOT, SKY, run_tool, start_fresh, tiny_options

from illama_seg.apis import build_trainer, load_config, parse_cfg_options
from illama_seg.engine import AutocastOptimWrapper
from illama_seg.engine.aside import alone
from illama_seg.engine.sharding import count_held
from illama_seg.pretrain.structures import DataSample

DIGITS = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
SHARDED = ROOT / 'configs' / 'upernet_illama_large_ade20k_fsdp.py'
ON_CPUS = [
    'sync_bn=None',  # its layers compute on GPUs only
    'model_wrapper_cfg.type=MMDistributedDataParallel',
    'model_wrapper_cfg.device_ids=None',
    'model_wrapper_cfg.broadcast_buffers=False',
]
AVERAGED = {
    'default_hooks.ema.type': 'EMAHook',
    'default_hooks.ema.momentum': 0.1,
    'custom_hooks': [
        dict(type='SoftMaskHook', mode='constant', cutoff=2, by_epoch=False)
    ],
}
LORA = dict(r=2, lora_alpha=4)
NUM_CLASSES = 5
FCN = dict(type='FCNHead', in_channels=16, in_index=3, num_classes=NUM_CLASSES)
FCN.update(channels=8, dropout_ratio=0.0)
UPER = dict(FCN, type='EfficientUPerHead', in_channels=[16] * 4, in_index=[0, 1, 2, 3])
NECK = dict(type='Feature2Pyramid', embed_dim=16, rescales=[4, 2, 1, 0.5])
GROUPS, BATCH = dict(type='GN', num_groups=2), dict(type='BN')


def unformatted(text, **style):
    """In place of what mmengine lays configs out with: most of a second for a run."""
    return text, False


# Models and batches, the same in every process


def segmentor(norm=GROUPS, head=UPER, auxiliary=FCN, neck=NECK, **options):
    config = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=backbone(**options),
        decode_head=dict(head, norm_cfg=norm),
    )
    if neck is not None:
        config['neck'] = dict(neck, norm_cfg=norm)
    if auxiliary is not None:
        config['auxiliary_head'] = dict(auxiliary, norm_cfg=norm)
    return built(config)


def classifier(**options):
    head = dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=16)
    backbone_ = backbone(out_type='cls_token', **options)
    return built(dict(type='ImageClassifier', backbone=backbone_, head=head))


def backbone(out_indices=(0, 1, 2, 3), **options):
    arch = dict(embed_dims=16, num_layers=4, num_heads=2)
    options.update(arch=arch, img_size=64, out_indices=out_indices)
    return dict(type='ILLaMA', **options)


def built(config):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config)
    model.init_weights()
    return model.train()


def segmentation_batch():
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(NUM_CLASSES, (4, 1, 64, 64), generator=draw)
    labels[:, :, :3] = 255
    samples = [SegDataSample(gt_sem_seg=PixelData(data=each)) for each in labels]
    return torch.randn(4, 3, 64, 64, generator=draw), samples


def classification_batch():
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(256, (8, 3, 64, 64), generator=draw, dtype=torch.uint8)
    labels = torch.randint(NUM_CLASSES, (8,), generator=draw).tolist()
    return images, [DataSample().set_gt_label(label) for label in labels]


def together(model):
    """The model as mmengine's runner wraps it, where there is more than one process."""
    if not dist.is_initialized():
        return model
    return MMDistributedDataParallel(model, broadcast_buffers=False)


# Gradients


def gradients(model, context=nullcontext, times=1):
    """Of the whole batch, of which every process takes its part."""
    wrapped, segments = together(model), hasattr(model, 'decode_head')
    images, samples = segmentation_batch() if segments else classification_batch()
    rank, world = get_dist_info()
    part = slice(rank * len(images) // world, (rank + 1) * len(images) // world)
    for _ in range(times):
        torch.manual_seed(2)
        with context():
            losses = wrapped(images[part].float(), samples[part], mode='loss')
        model.parse_losses(losses)[0].backward()
    named = model.named_parameters()
    return {name: value.grad for name, value in named if value.requires_grad}


def adapted():
    """A segmentor whose adapters have begun to change its outputs."""
    model = segmentor(lora=LORA)
    for name, value in model.named_parameters():
        if '.lora_B.' in name:
            nn.init.normal_(value, std=0.1)
    return model


def in_bfloat16(model):
    wrapper = AutocastOptimWrapper(
        torch.optim.SGD(model.parameters(), lr=1.0), dtype='bfloat16'
    )
    return gradients(model, partial(wrapper.optim_context, model))


def reentrant(model):
    """By mmengine's own switch, which takes torch's default variant."""
    turn_on_activation_checkpointing(model, [f'backbone.blocks.{i}' for i in range(4)])
    return gradients(model)


def update_of_a_classifier(images_at_once, counts):
    """Weights after one step of 8 images, over ``counts`` iterations."""
    model = classifier()
    wrapped, (images, samples) = together(model), classification_batch()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = OptimWrapper(sgd, accumulative_counts=counts)
    wrapper.initialize_count_status(model, 0, counts)
    rank, world = get_dist_info()
    for iteration in range(counts):
        start = (iteration * world + rank) * images_at_once
        part = slice(start, start + images_at_once)
        batch = dict(inputs=images[part], data_samples=samples[part])
        wrapped.train_step(batch, wrapper)
    return {name: value.detach() for name, value in model.named_parameters()}


GRADIENTS = {
    'groups': lambda: gradients(segmentor()),
    'batch norm': lambda: gradients(segmentor(BATCH)),
    'bfloat16': lambda: in_bfloat16(segmentor()),
    'stored': lambda: gradients(segmentor(drop_path_rate=0.5)),
    'with_cp': lambda: gradients(segmentor(drop_path_rate=0.5, with_cp=True)),
    'reentrant': lambda: reentrant(segmentor(drop_path_rate=0.5)),
    'LoRA': lambda: gradients(adapted()),
}
ONE_MAP = dict(head=dict(FCN, in_index=0), neck=None, out_indices=(3,))
MODELS_OF_CONFIGS = {
    'EfficientUPerHead and FCNHead': segmentor,
    'EfficientUPerHead': partial(segmentor, auxiliary=None),
    'LoRA': partial(segmentor, lora=LORA),
    'FCNHead': partial(segmentor, auxiliary=None, **ONE_MAP),
    'class token': classifier,
    'class token of one block': partial(classifier, out_indices=-1),
}


def train_twice():
    """DDP stops in the second iteration if a parameter of the first got no gradient."""
    for make in MODELS_OF_CONFIGS.values():
        for with_cp in (False, True):
            found = gradients(make(drop_path_rate=0.5, with_cp=with_cp), times=2)
            yield [name for name, gradient in found.items() if gradient is None]


def forgetful():
    """What DDP says of a parameter that nothing uses."""
    model = segmentor()
    model.forgotten = nn.Parameter(torch.zeros(1))
    try:
        gradients(model, times=2)
    except RuntimeError as error:
        return str(error)


# Trainings


class Watch(Hook):
    """Keep losses, the weights at the start and, of averaged ones, all on the way."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.losses, self.after, self.averages = [], [], []
        self.start = self.validated = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.start is None:
            self.start = weights(runner)
            self.averages = averages(runner)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))
        if self.averages:
            self.after.append(weights(runner))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.averages and self.validated is None:
            self.validated = weights(runner)


def weights(runner):
    model = runner.model
    model = model.module if is_model_wrapper(model) else model
    return {key: value.clone() for key, value in model.state_dict().items()}


def averages(runner):
    hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    states = [hook.ema_model.module.state_dict() for hook in hooks]
    return [{key: value.clone() for key, value in state.items()} for state in states]


def training_options(data):
    """Six iterations; one of the two validation images takes more windows."""
    options = [
        *tiny_options(data, iterations=6),
        *ON_CPUS,
        *('randomness.seed=0', 'model.backbone.drop_path_rate=0.0'),
        *('model.decode_head.dropout_ratio=0', 'model.auxiliary_head.dropout_ratio=0'),
        'val_dataloader.dataset.pipeline.1.scale=(160,64)',
        *('optim_wrapper.optimizer.lr=0.01', 'optim_wrapper.clip_grad.max_norm=1.0'),
        'param_scheduler.0.start_factor=1.0',
    ]
    return parse_cfg_options(options)


def train(folder, data, config=CONFIG, amp=False, start=None, **options):
    """Train, or go on from the file ``start``; what happened."""
    start_fresh()
    if start is not None and dist.get_rank() == 0:
        folder.mkdir()
        (folder / 'last_checkpoint').write_text(str(shutil.copy(start, folder)))
    dist.barrier()
    options = training_options(data) | options
    cfg = load_config(config, options, folder, launcher='pytorch')
    runner = build_trainer(cfg, amp=amp, resume=start is not None)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    moments = [s['exp_avg'] for s in runner.optim_wrapper.optimizer.state.values()]
    return vars(watch) | dict(
        end=weights(runner),
        end_averages=averages(runner),
        held=count_held(runner.model),
        held_moments=sum(getattr(m, '_local_tensor', m).numel() for m in moments),
        total=sum(value.numel() for value in runner.model.parameters()),
        miou=float(runner.message_hub.get_scalar('val/mIoU').current()),
    )


def fails_in_one(folder, data):
    """Types and messages of the errors, where the second process's metric fails."""
    start_fresh()
    cfg = load_config(CONFIG, training_options(data), folder, launcher='pytorch')
    runner = build_trainer(cfg)
    (metric,) = runner.val_loop.evaluator.metrics
    if dist.get_rank() == 1:
        metric.nan_to_num = 'nonsense'
    try:
        runner.train()
    except Exception as error:
        return type(error).__name__, str(error), runner.iter
    return None


def synchronised_alone():
    """Norms that are synchronised, on one of the processes."""
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm2d(3))
    with alone():
        return model(torch.rand(2, 3, 4, 4)).shape


def trainings(folder, data, pretrained):
    init = {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=pretrained)}
    two = {'train_cfg.max_iters': 2}
    first = folder / 'averaged' / 'iter_2.pth'
    start = dict(data=data, amp=True, **AVERAGED, **init, **two)
    off = {'default_hooks.rehearsal.num_images': 0}
    later = {
        'train_cfg.val_interval': 4,
        'default_hooks.checkpoint.interval': 6,
        'optim_wrapper.accumulative_counts': 2,
    }
    on = dict(data=data, start=first, amp=True, **later)
    with_cp = {'model.backbone.with_cp': True}
    fitted = {
        'load_from': pretrained,
        'model.backbone.img_size': (96, 64),
        'train_cfg.max_iters': 1,
        'train_cfg.val_interval': 9,
    }
    return {
        'fitted': train(folder / 'fitted', data, **fitted),
        'fitted shards': train(folder / 'shards', data, config=SHARDED, **fitted),
        'averaged': train(first.parent, **start),
        'not rehearsed': train(folder / 'not_rehearsed', **start, **off),
        'copied': train(folder / 'copied', **on),
        'sharded': train(folder / 'sharded', config=SHARDED, **on, **with_cp),
    }


# Evaluations, of an odd number of images


def evaluate_segmentor(folder, data, checkpoint, *options):
    """By tools/test.py; the averages' hook has nothing to average there."""
    images = [
        'test_dataloader.dataset.indices=3',
        'test_dataloader.dataset.data_prefix.img_path=images/training',
        'test_dataloader.dataset.data_prefix.seg_map_path=annotations/training',
    ]
    settings = [
        *tiny_options(data),
        *ON_CPUS,
        *images,
        'default_hooks.ema.type=EMAHook',
    ]
    arguments = ['--work-dir', folder, *options, '--cfg-options', *settings]
    run_tool('test', SHARDED, checkpoint, *arguments)


def evaluate_classifier(folder, checkpoint, *options):
    """Likewise."""
    loader = ['dataset.indices=7', 'batch_size=2']
    settings = [*ON_CPUS[1:], *(f'test_dataloader.{option}' for option in loader)]
    arguments = ['--work-dir', folder, *options, '--cfg-options', *settings]
    run_tool('test', DIGITS, checkpoint, *arguments)


def bias_towards_what_is_there(checkpoint, file):
    """So that a segmentor of a few iterations gets some pixels right."""
    content = torch.load(checkpoint, weights_only=False)
    content['state_dict']['decode_head.conv_seg.bias'][[SKY - 1, ROAD - 1]] += 9
    torch.save(content, file)


def main(folder, data, pretrained, classifier_file):
    rank, together_ = dist.get_rank(), ('--launcher', 'pytorch')
    results = dict(
        gradients={name: make() for name, make in GRADIENTS.items()},
        update=update_of_a_classifier(images_at_once=2, counts=2),
        unused=list(train_twice()),
        forgetful=forgetful(),
        failure=fails_in_one(folder / 'failure', data),
        synchronised=tuple(synchronised_alone()),
        trainings=trainings(folder, data, str(pretrained)),
    )
    biased = folder / 'biased.pth'
    if rank == 0:
        bias_towards_what_is_there(folder / 'sharded' / 'iter_6.pth', biased)
    dist.barrier()
    evaluate_segmentor(folder / 'together' / 'miou', data, biased, *together_)
    evaluate_classifier(folder / 'together' / 'top1', classifier_file, *together_)
    torch.save(results, folder / f'rank{rank}.pt')


if __name__ == '__main__':
    torch.set_num_threads(1)
    yapf_api.FormatCode = unformatted
    dist.init_process_group('gloo', timeout=timedelta(seconds=60))
    main(*map(Path, sys.argv[1:]))
    dist.barrier()
    # Without taking gloo down: seldom a process was aborted when the other had ended.
    os._exit(0)
