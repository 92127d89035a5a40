"""What would fail after hours is met before the first iteration, without a trace."""

import functools
import random
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.logging import print_log
from mmengine.registry import METRICS, MODELS
from tiny_long_runs import EMA, KINDS, config, differing, train
from tiny_run import make_ade20k, start_fresh
from tiny_squares import AtFirst, Began, make_squares, write_config
from torch import nn
from toy_run import ToyMetric, ToyModel, toy as unrehearsed

from illama_seg.apis import build_tester, build_trainer, load_config
from illama_seg.engine import RehearsalError, RehearsalHook
from illama_seg.engine.aside import model_kept
from illama_seg.errors import UserError
from illama_seg.layers import attention_dispatch
from illama_seg.machine import choices
from illama_seg.quantization.quantizer import QuantLinear

toy = functools.partial(unrehearsed, rehearsal=dict(type='RehearsalHook'))


@MODELS.register_module(force=True)
class ChangingModel(ToyModel):
    """Its first forward pass sets a weight, each one a buffer; a mode may fail."""

    def __init__(self, fails='', error=None):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False)
        self.step = nn.Parameter(torch.ones(1))
        self.is_ready, self.fails, self.error = False, fails, error

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if not self.is_ready:
            self.step.data.copy_(torch.rand(1))
            self.is_ready = True
        inputs = self.norm(torch.stack(inputs)) * self.step
        random.random(), np.random.rand()
        if mode == self.fails:
            raise self.error or KeyError('broken here')
        return super().forward([*inputs], data_samples, mode)


@METRICS.register_module(force=True)
class LoudMetric(ToyMetric):
    """Logs and writes what it computes, under any name; it may fail."""

    def __init__(self, name='top', output_dir=None, fails=False):
        super().__init__()
        self.name, self.output_dir, self.fails = name, output_dir, fails

    def compute_metrics(self, results):
        if self.fails:
            raise ZeroDivisionError('no images of this class')
        print_log(f'a table of {len(results)}', 'current', level=40)
        if self.output_dir:
            with open(f'{self.output_dir}/table.txt', 'a') as file:
                file.write('1')
        return {self.name: super().compute_metrics(results)['top']}


class Stop(Exception):
    """Ends a training before its first iteration."""


class Rehearse(Hook):
    """Rehearse at the end of all that comes before a training, and compare states."""

    priority = 'LOWEST'

    def __init__(self, num_images=2):
        self.hook, self.error = RehearsalHook(num_images), None

    def before_train(self, runner):
        for parameter in runner.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.before = state(runner)
        try:
            self.hook.before_train(runner)
        except Exception as error:
            self.error = error
        self.after = state(runner)
        raise Stop


def state(runner):
    model, wrapper, hub = runner.model, runner.optim_wrapper, runner.message_hub
    folder = runner.work_dir
    return dict(
        weights={key: value.tolist() for key, value in model.state_dict().items()},
        gradients=[parameter.grad.tolist() for parameter in model.parameters()],
        modules=[(m.training, getattr(m, 'is_ready', None)) for m in model.modules()],
        wrapper=dict(vars(wrapper)),
        optimizer=len(wrapper.optimizer.state),
        scalars={k: [x.tolist() for x in v.data] for k, v in hub.log_scalars.items()},
        infos=dict(hub.runtime_info),
        random=random.getstate(),
        numpy=np.random.get_state()[1].tolist(),
        torch=torch.get_rng_state().tolist(),
        hooks=[*runner.hooks],
        iterators=[loop.dataloader._iterator for loop in loops(runner)],
        metrics=[dict(vars(m)) for loop in loops(runner)[1:] for m in metrics_of(loop)],
        files={p: p.stat().st_size for p in files(folder)},
        logging=runner.logger.disabled,
        choices=choices.made(),
        processes=torch.distributed.is_initialized,
    )


def loops(runner):
    return [loop for loop in (runner.train_loop, runner.val_loop) if loop is not None]


def metrics_of(loop):
    return loop.evaluator.metrics


def files(folder):
    return [path for path in Path(folder).rglob('*') if path.is_file()]


def rehearsed(tmp_path, num_images=2, hooks=(), **options):
    """What a hook of the test saw of a rehearsal; the run's own is off."""
    runner = toy(tmp_path, **options)
    own_of(runner).num_images = 0
    hook = Rehearse(num_images)
    for each in (hook, *hooks):
        runner.register_hook(each)
    with pytest.raises(Stop):
        runner.train()
    return hook


def own_of(runner):
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, RehearsalHook))
    return hook


CLIPPED = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.01),
    accumulative_counts=2,
    clip_grad=dict(max_norm=1.0),
)


# No trace


@pytest.mark.parametrize('fails', ['', 'loss', 'predict'])
def test_everything_is_as_before_also_after_a_failure(fails, tmp_path):
    (tmp_path / 'out').mkdir()
    metric = dict(type='LoudMetric', output_dir=str(tmp_path / 'out'))
    model = dict(type='ChangingModel', fails=fails)
    hook = rehearsed(tmp_path, model=model, val_evaluator=metric, optim_wrapper=CLIPPED)
    assert hook.before == hook.after
    assert (hook.error is None) == (not fails)
    assert bool(hook.hook.summary) == (not fails)


def test_something_was_done(tmp_path, monkeypatch):
    """Else nothing to put back is no merit."""
    monkeypatch.setattr(
        'illama_seg.engine.rehearsal.set_aside', lambda runner: torch.enable_grad()
    )
    hook = rehearsed(tmp_path, model=dict(type='ChangingModel'), optim_wrapper=CLIPPED)
    differ = {key for key in hook.before if hook.before[key] != hook.after[key]}
    expected = {'weights', 'gradients', 'modules', 'wrapper', 'scalars', 'files'}
    assert expected | {'random', 'numpy', 'torch'} <= differ


def test_a_quantisers_steps_are_left_to_the_first_batch():
    model = QuantLinear(3, 2, bias=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = [(m.__dict__.get('_is_ready'), m.training) for m in model.modules()]
    with model_kept(model):
        model(torch.rand(4, 3)).sum().backward()
        assert model.input.ready and model.input.step != 1
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert attributes == [
        (m.__dict__.get('_is_ready'), m.training) for m in model.modules()
    ]
    assert model.weight.grad is None and not model._has_steps


def test_nothing_is_measured_for_it_and_nothing_noted(monkeypatch):
    monkeypatch.setenv('ILLAMA_SEG_ATTENTION', 'auto')
    monkeypatch.setattr(attention_dispatch, '_times', lambda *case: pytest.fail('time'))
    case = dict(num_tokens=9, num_heads=5000, training=True)  # of no other test
    before = choices.made()
    with choices.unmeasured():
        choice = attention_dispatch.automatic_implementation(
            'cpu', torch.float32, 8, **case
        )
        assert choice.source == 'not measured' and choices.made() != before
    assert choices.made() == before


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp('data') / 'ade20k')


def five_iterations(kind, data, folder, num_images, resume=None):
    """Soft mask, averaged weights, accumulated gradients, half precision by measure."""
    options = [
        f'default_hooks.rehearsal.num_images={num_images}',
        'model.backbone.with_cp=True',
        'default_hooks.checkpoint.max_keep_ckpts=-1',
    ]
    if kind == 'segmentation':
        options += ['train_cfg.max_iters=5', 'train_cfg.val_interval=3']
    else:
        options += ['train_cfg.max_epochs=1', 'param_scheduler.0.warmup=0']
    cfg = config(kind, data, folder, options=options)
    cfg.custom_hooks = [dict(type='SoftMaskHook', mode='linear', cutoff=4), EMA]
    cfg.custom_hooks[0].update(by_epoch=False)
    if resume is not None:
        folder.mkdir()
        shutil.copy(resume, folder)
    train(cfg, resume=resume is not None)
    return max(folder.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))


@pytest.mark.parametrize('kind', KINDS)
def test_a_training_is_the_same_with_and_without_it_bit_for_bit(kind, data, tmp_path):
    without = five_iterations(kind, data, tmp_path / 'without', 0)
    end = five_iterations(kind, data, tmp_path / 'with', 2)
    assert end.name == without.name
    assert not differing(end, without)
    first = tmp_path / 'without' / 'iter_2.pth'
    resumed = five_iterations(kind, data, tmp_path / 'resumed', 2, resume=first)
    assert not differing(resumed, without)


# What is met


def model(fails, error=None):
    return dict(model=dict(type='ChangingModel', fails=fails, error=error))


def metric(**options):
    return dict(val_evaluator=dict(type='LoudMetric', **options))


BEST = dict(checkpoint=dict(save_best='auto'))
FAILURES = {
    'training step': (model('loss'), KeyError, 'broken here'),
    'validation': (model('predict'), KeyError, 'broken here'),
    'metric': (metric(fails=True), ZeroDivisionError, 'no images of this class'),
    'checkpoint rule': (metric(name='x') | BEST, ValueError, 'the rule for key toy/x'),
}


@pytest.mark.parametrize('stage', FAILURES)
def test_a_failure_is_named_by_its_stage_and_keeps_its_cause(stage, tmp_path):
    options, kind, text = FAILURES[stage]
    runner = toy(tmp_path, **options)
    with pytest.raises(RehearsalError) as found:
        runner.train()
    message, cause = str(found.value), found.value.__cause__
    assert runner.iter == 0 and type(cause) is kind and text in str(cause)
    assert message.startswith(f'rehearsal of the {stage}: {kind.__name__}: ')
    assert text in message and 'default_hooks.rehearsal.num_images=0' in message


def test_a_failure_without_words_is_named_by_its_line(tmp_path):
    runner = toy(tmp_path, **model('predict', AssertionError()))
    with pytest.raises(RehearsalError, match=r'at `raise self\.error or'):
        runner.train()


def test_what_a_user_can_fix_is_said_as_it_is(tmp_path):
    runner = toy(tmp_path, **model('predict', UserError('expected b', a=1)))
    with pytest.raises(UserError) as found:
        runner.train()
    assert str(found.value) == 'a=1: expected b'


RESIZED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(40, 32)),
    dict(type='PackSegInputs'),
]


@pytest.mark.parametrize(
    ('wrong', 'text', 'fixed'),
    [
        (
            dict(dataset=dict(pipeline=RESIZED)),
            r'0\.png is 32x40 behind .*the prediction is 64x80, .*behind Resize',
            dict(dataset=dict(pipeline=[RESIZED[i] for i in (0, 2, 1, 3)])),
        ),
        (
            dict(batch_size=2),
            r'batch_size=2, .* as 50x70 and 64x80: set val_dataloader\.batch_size=1',
            dict(batch_size=1),
        ),
    ],
    ids=['labels', 'images'],
)
def test_sizes_that_do_not_fit_in_a_validation_are_named(wrong, text, fixed, tmp_path):
    data = make_squares(tmp_path / 'data')
    if 'batch_size' in wrong:
        for folder in ('images', 'labels'):
            path = str(data / 'val' / folder / '0.png')
            cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_UNCHANGED)[:50, :70])
    config = write_config(tmp_path / 'squares.py', data)
    for settings in (wrong, fixed):
        path = tmp_path / 'sized.py'
        path.write_text(f"_base_ = ['{config}']\nval_dataloader = {settings}")
        start_fresh()
        runner = build_trainer(load_config(path, work_dir=tmp_path / 'run'))
        runner.register_hook(AtFirst())
        ends = (Began, '') if settings is fixed else (UserError, text)
        with pytest.raises(ends[0], match=ends[1]):
            runner.train()


def test_a_test_names_sizes_that_do_not_fit(tmp_path):
    data = make_squares(tmp_path / 'data')
    config = write_config(tmp_path / 'squares.py', data)
    runner = build_trainer(load_config(config, work_dir=tmp_path / 'run'))
    runner.train()
    path = tmp_path / 'sized.py'
    path.write_text(
        f"_base_ = ['{config}']\n"
        f'test_dataloader = dict(dataset=dict(pipeline={RESIZED}))'
    )
    for options, text in (
        ({}, r'0\.png is 32x40 behind test_dataloader'),
        ({'test_dataloader.batch_size': 2}, r'set test_dataloader\.batch_size=1'),
    ):
        if options:
            for folder in ('images', 'labels'):
                file = str(data / 'val' / folder / '0.png')
                cv2.imwrite(file, cv2.imread(file, cv2.IMREAD_UNCHANGED)[:50, :70])
        start_fresh()
        cfg = load_config(config if options else path, options, tmp_path / 'test')
        with pytest.raises(UserError, match=text):
            build_tester(cfg, tmp_path / 'run' / 'iter_4.pth').test()


@pytest.mark.parametrize('size', ['unknown', 'known'])
def test_what_does_not_fit_into_memory_has_a_hint(size, tmp_path):
    error = torch.OutOfMemoryError('2 TiB')
    if size == 'unknown':
        error = RuntimeError('DefaultCPUAllocator: not enough memory')
    with pytest.raises(RehearsalError, match=r'model\.backbone\.with_cp=True'):
        toy(tmp_path, **model('loss', error)).train()
    with pytest.raises(RehearsalError, match=r"model\.test_cfg\.mode='slide'"):
        toy(tmp_path, **model('predict', error)).train()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (
            dict(checkpoint=dict(save_best=['toy/top', 'toy/top5'])),
            "save_best='toy/top5', but the validation gives toy/top",
        ),
        (
            dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='mIoU')]),
            "EarlyStoppingHook monitor='mIoU', but the validation gives toy/top",
        ),
        (
            dict(param_scheduler=dict(type='ReduceOnPlateauLR', monitor='mIoU')),
            "ReduceOnPlateauLR monitor='mIoU', but the validation gives toy/top",
        ),
    ],
)
def test_a_name_that_the_validation_does_not_give_is_met(options, text, tmp_path):
    runner = toy(tmp_path, **options)
    with pytest.raises(UserError, match=text):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('best', ['auto', 'toy/top', ['toy/top'], None])
def test_a_name_that_it_gives_is_no_failure(best, tmp_path):
    hook = EarlyStoppingHook(monitor='toy/top')
    found = rehearsed(tmp_path, hooks=[hook], checkpoint=dict(save_best=best))
    assert found.error is None


# How much


def test_without_images_nothing_is_rehearsed(tmp_path):
    hook = rehearsed(tmp_path, num_images=0, **model('loss'))
    assert hook.error is None and hook.hook.summary == ''
    with pytest.raises(UserError, match='num_images=-1: expected at least 1, or 0'):
        RehearsalHook(num_images=-1)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(), 'one step of 2 images and 2 images validated, '),
        (dict(train_data=dict(size=1)), 'one step of 2 images and 2 images validated'),
        (
            dict(val_dataloader=None, val_cfg=None, val_evaluator=None),
            'one step of 2 images, ',
        ),
    ],
)
def test_the_images_are_counted(options, text, tmp_path):
    assert rehearsed(tmp_path, **options).hook.summary.startswith(text)


def test_no_more_images_than_a_batch_are_taken_at_once(tmp_path, monkeypatch):
    seen = []
    real = ToyModel.forward

    def forward(model, inputs, data_samples=None, mode='tensor'):
        seen.append((mode, len(inputs)))
        return real(model, inputs, data_samples, mode)

    monkeypatch.setattr(ToyModel, 'forward', forward)
    hook = rehearsed(tmp_path, num_images=3)
    assert seen == [('loss', 2), ('predict', 2), ('predict', 1)]
    assert hook.hook.summary.startswith('one step of 2 images and 3 images validated')


def test_a_training_that_is_over_rehearses_nothing(tmp_path):
    toy(tmp_path, length=2, **model('')).train()
    runner = toy(tmp_path, length=2, resume=True, **model('loss'))
    runner.train()
    assert own_of(runner).summary == ''


def test_no_compilation_is_started(tmp_path, monkeypatch):
    def compiled(*args, **kwargs):
        pytest.fail('the compiled step was called')

    monkeypatch.setattr(torch, 'compile', lambda function, **options: compiled)
    assert rehearsed(tmp_path, compile=True).error is None


def test_workers_of_the_loaders_are_not_started(tmp_path):
    hook = rehearsed(tmp_path, workers=1)
    assert hook.error is None and hook.after['iterators'] == [None, None]
