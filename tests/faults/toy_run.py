"""A training of a linear model in milliseconds, with all the guards of a long one."""

import logging

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from tiny_long_runs import PlainConfig
from tiny_run import start_fresh
from torch import nn

from illama_seg.apis.runs.foreign import complete_runtime


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Its loss depends on the images, on random numbers and on the order of both."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        out = self.linear(torch.nn.functional.dropout(torch.stack(inputs), 0.5))
        if mode == 'loss':
            return dict(loss=(out - 1).square().mean())
        for sample, value in zip(data_samples, out, strict=True):
            sample.set_metainfo(dict(value=value.item()))
        return data_samples


@DATASETS.register_module(force=True)
class ToyDataset(BaseDataset):
    """Images of three random numbers; those listed in `corrupt` cannot be read."""

    METAINFO = dict(classes=('a',))

    def __init__(self, size=16, corrupt=(), **kwargs):
        self.size, self.corrupt = size, set(corrupt)
        super().__init__(**kwargs)

    def load_data_list(self):
        return [dict(img_path=f'image_{index}.jpg') for index in range(self.size)]

    def prepare_data(self, idx):
        path = self.get_data_info(idx)['img_path']
        if idx in self.corrupt:
            raise ValueError(f'{path} is damaged')
        sample = BaseDataElement(metainfo=dict(img_path=path, sample_idx=idx))
        return dict(inputs=torch.rand(3) + idx, data_samples=sample)


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    """Higher after every validation, or the values given."""

    default_prefix = 'toy'

    def __init__(self, values=()):
        super().__init__()
        self.values, self.calls = list(values), 0

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        self.calls += 1
        score = self.values.pop(0) if self.values else self.calls
        return dict(top=score, other=score)


def toy(work_dir, by_epoch=False, workers=0, length=8, resume=False, **more):
    """Batches of 2 of 16 images, by default 8 iterations, a checkpoint every 2nd."""
    start_fresh()

    def loader(dataset, **sampler):
        return dict(
            batch_size=2,
            num_workers=workers,
            sampler=sampler,
            dataset=dict(type='ToyDataset', serialize_data=False, **dataset),
        )

    endless = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler')
    train_cfg = dict(type='IterBasedTrainLoop', max_iters=length, val_interval=1000)
    if by_epoch:
        train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1000)
    checkpoint = dict(
        type='CheckpointHook', by_epoch=by_epoch, interval=1 if by_epoch else 2
    )
    checkpoint.update(more.pop('checkpoint', {}))
    train_cfg.update(more.pop('train_cfg', {}))
    cfg = dict(
        model=dict(type='ToyModel'),
        work_dir=str(work_dir),
        train_dataloader=loader(more.pop('train_data', {}), **endless, shuffle=True),
        val_dataloader=loader(dict(size=4), type='DefaultSampler', shuffle=False),
        train_cfg=train_cfg,
        val_cfg=dict(),
        val_evaluator=dict(type='ToyMetric', values=more.pop('scores', [])),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=0.01),
            accumulative_counts=more.pop('accumulate', 1),
        ),
        default_hooks=dict(
            checkpoint=checkpoint,
            overview=None,
            # It would see a batch more than a test counts.
            rehearsal=more.pop('rehearsal', None),
            corrupt_images=dict(
                type='CorruptImagesHook', limit=more.pop('corrupt_images', 0.0)
            ),
        ),
        randomness=dict(seed=1),
        resume=resume,
        log_level='WARNING',
        experiment_name=f'toy_{id(more)}',
        default_scope='mmengine',
    )
    cfg = PlainConfig(cfg | more)
    complete_runtime(cfg)
    return Runner.from_cfg(cfg)


class Messages(logging.Handler):
    """Collects what a runner logs."""

    def __init__(self, runner):
        super().__init__(logging.WARNING)
        self.texts = []
        runner.logger.addHandler(self)

    def emit(self, record):
        self.texts.append(record.getMessage())

    def __str__(self):
        return '\n'.join(self.texts)
