"""Resumed with other options: they apply, the log has a line for each of them."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from toy_run import Messages, toy

from illama_seg.engine.long_runs.changes import find_changes
from illama_seg.engine.long_runs.options import compare_loss_scale

LENGTH, PAUSE = 12, 6


class Rates(Hook):
    """Options of the optimiser's groups in every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.param_groups
        keys = ('lr', 'momentum', 'weight_decay', 'betas', 'eps')
        self.seen[runner.iter] = [
            {key: group.get(key) for key in keys} for group in groups
        ]


def trained(work_dir, length=LENGTH, optimizer=None, schedule=(), **more):
    """Train a toy: its runner, what it warned of, the options in each iteration."""
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.1) | (optimizer or {}),
        paramwise_cfg=dict(custom_keys={'bias': dict(lr_mult=0.1, decay_mult=0.5)}),
    )
    wrapper |= more.pop('wrapper', {})
    cfg = dict(optim_wrapper=wrapper, param_scheduler=[dict(s) for s in schedule])
    more.setdefault('checkpoint', dict(interval=PAUSE))
    with mock.patch('mmengine.runner.runner.collect_env', dict):  # slow
        runner = toy(work_dir, length=length, **cfg, **more)
    messages, rates = Messages(runner), Rates()
    runner.register_hook(rates)
    runner.train()
    return runner, messages.texts, rates.seen


def resumed(work_dir, before, after):
    """Train to the pause by some options, and on by others; what it warned of."""
    first = dict(length=PAUSE) | before
    trained(work_dir, **first)
    runner, said, seen = trained(work_dir, resume=True, **after)
    lines = [text for text in said if text.startswith('resumed with ')]
    return runner, [line.removeprefix('resumed with ') for line in lines], seen


def linear(end, start_factor=0.1):
    return dict(type='LinearLR', by_epoch=False, end=end, start_factor=start_factor)


def poly(begin, end, **more):
    return dict(type='PolyLR', power=0.9, by_epoch=False, begin=begin, end=end, **more)


def of(kind, **more):
    return [dict(type=kind, by_epoch=False, **more)]


SCHEDULES = {
    'longer': ([linear(2), poly(2, 6)], [linear(2), poly(2, 12)]),
    'longer warmup': ([linear(2), poly(2, 12)], [linear(4), poly(4, 12)]),
    'warmup that goes on': ([linear(2), poly(2, 12)], [linear(8), poly(8, 12)]),
    'eta_min': ([poly(0, 12)], [poly(0, 12, eta_min=1e-3)]),
    'cosine': (of('CosineAnnealingLR', T_max=6), of('CosineAnnealingLR', T_max=12)),
    'cosine, by its end': (
        of('CosineAnnealingLR', end=6),
        of('CosineAnnealingLR', end=12, eta_min=1e-4),
    ),
    'steps': (
        of('MultiStepLR', milestones=[2, 4]),
        of('MultiStepLR', milestones=[3, 9]),
    ),
    'step size': (of('StepLR', step_size=2), of('StepLR', step_size=4, gamma=0.5)),
    'exponential': (of('ExponentialLR', gamma=0.5), of('ExponentialLR', gamma=0.9)),
    'constant': (of('ConstantLR', end=3), of('ConstantLR', end=9, factor=0.5)),
    'one cycle': (
        of('OneCycleLR', eta_max=0.1, total_steps=12),
        of('OneCycleLR', eta_max=0.2, total_steps=14, pct_start=0.5),
    ),
    'restarts': (
        of('CosineRestartLR', periods=[6, 6], restart_weights=[1, 1], eta_min=0),
        of('CosineRestartLR', periods=[4, 8], restart_weights=[1, 0.5], eta_min=0),
    ),
    'our own': (
        of('WarmupCosineLR', warmup=2, end=8),
        of('WarmupCosineLR', warmup=3, end=12, eta_min=1e-5),
    ),
    'momentum': (
        of('CosineAnnealingMomentum', T_max=6),
        of('CosineAnnealingMomentum', T_max=12),
    ),
    'another kind': ([poly(0, 12)], of('CosineAnnealingLR', T_max=12)),
    'our own from another': ([poly(0, 12)], of('WarmupCosineLR', end=12)),
    'one more': ([poly(0, 12)], [poly(0, 12), linear(8)]),
    'none': ([poly(0, 12)], []),
    'none before': ([], [poly(0, 12)]),
}


@pytest.mark.parametrize('name', SCHEDULES)
def test_another_schedule_gives_the_values_of_a_run_that_had_it_from_the_start(
    name, tmp_path
):
    before, after = SCHEDULES[name]
    _, lines, seen = resumed(
        tmp_path / 'a', dict(schedule=before), dict(schedule=after)
    )
    _, _, expected = trained(tmp_path / 'b', schedule=after)
    assert lines and all(
        'param_scheduler' in line or 'max_iters' in line for line in lines
    )
    assert seen == {step: expected[step] for step in range(PAUSE, LENGTH)}


def test_a_run_that_was_resumed_so_is_resumed_like_any_other(tmp_path):
    before, after = (dict(schedule=each) for each in SCHEDULES['longer warmup'])
    resumed(tmp_path / 'a', before, after | dict(length=9, checkpoint=dict(interval=9)))
    _, said, seen = trained(tmp_path / 'a', resume=True, **after)
    _, _, expected = trained(tmp_path / 'b', **after)
    assert seen == {step: expected[step] for step in range(9, LENGTH)}
    assert [text for text in said if 'resumed with' in text] == [
        f'resumed with train_cfg.max_iters={LENGTH}, was 9'
    ]


@pytest.mark.parametrize(
    ('by', 'before', 'after'),
    [
        ('epochs', dict(step_size=1, gamma=0.5), dict(step_size=2, gamma=0.5)),
        ('converted', dict(step_size=1, gamma=0.5), dict(step_size=1, gamma=0.1)),
    ],
)
def test_epochs_are_counted_too(by, before, after, tmp_path):
    more = dict(convert_to_iter_based=True) if by == 'converted' else {}

    def run(folder, epochs, options, **kwargs):
        schedule = [dict(type='StepLR', by_epoch=True, **more, **options)]
        return trained(
            tmp_path / folder,
            by_epoch=True,
            checkpoint=dict(interval=epochs),
            train_cfg=dict(max_epochs=epochs),
            schedule=schedule,
            **kwargs,
        )

    run('a', 2, before)
    _, said, seen = run('a', 3, after, resume=True)
    _, _, expected = run('b', 3, after)
    assert seen == {step: expected[step] for step in range(16, 24)}
    assert 'resumed with train_cfg.max_epochs=3, was 2' in said


@pytest.mark.parametrize('schedule', [[], [poly(0, 12)], of('WarmupCosineLR', end=12)])
def test_another_learning_rate_applies_at_once_with_or_without_a_schedule(
    schedule, tmp_path
):
    schedule = dict(schedule=schedule)
    new = schedule | dict(optimizer=dict(lr=0.04))
    _, lines, seen = resumed(tmp_path / 'a', schedule, new)
    _, _, expected = trained(tmp_path / 'b', **new)
    assert seen == {step: expected[step] for step in range(PAUSE, LENGTH)}
    # The bias has a tenth of it.
    rate = 'optim_wrapper.optimizer.lr=0.004 to 0.04, was 0.001 to 0.01'
    assert lines == [rate, f'train_cfg.max_iters={LENGTH}, was {PAUSE}']


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (dict(weight_decay=0.3), 'weight_decay=0.15 to 0.3, was 0.05 to 0.1'),
        (dict(betas=(0.8, 0.99)), 'betas=(0.8, 0.99), was (0.9, 0.999)'),
        (dict(eps=1e-6), 'eps=1e-06, was 1e-08'),
    ],
)
def test_another_option_of_the_optimiser_applies_and_the_schedule_goes_on(
    options, line, tmp_path
):
    schedule = dict(schedule=[linear(2), poly(2, 12)])
    new = schedule | dict(optimizer=options)
    _, lines, seen = resumed(tmp_path / 'a', schedule, new)
    _, _, expected = trained(tmp_path / 'b', **new)
    assert seen == {step: expected[step] for step in range(PAUSE, LENGTH)}
    length = f'train_cfg.max_iters={LENGTH}, was {PAUSE}'
    assert lines == [f'optim_wrapper.optimizer.{line}', length]


def refused(work_dir, before, after):
    trained(work_dir, **dict(length=PAUSE) | before)
    with pytest.raises(
        ValueError, match=rf'iter_{PAUSE}\.pth cannot be resumed'
    ) as error:
        trained(work_dir, resume=True, **after)
    return str(error.value)


def test_an_option_that_needs_what_was_not_kept_is_refused(tmp_path):
    message = refused(tmp_path, {}, dict(optimizer=dict(amsgrad=True)))
    assert 'optim_wrapper.optimizer.amsgrad=False' in message


def test_other_groups_of_parameters_are_refused(tmp_path):
    message = refused(tmp_path, {}, dict(wrapper=dict(paramwise_cfg=None)))
    assert 'has 2 groups of parameters, that of the config 1' in message
    assert (
        f'set load_from={tmp_path / f"iter_{PAUSE}.pth"} and leave resume out'
        in message
    )


def test_a_schedule_that_follows_the_scores_is_not_changed(tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', by_epoch=True, monitor='toy/top')
    more = dict(train_cfg=dict(val_interval=3))

    def options(factor):
        return dict(schedule=[dict(plateau, factor=factor)], **more)

    message = refused(tmp_path / 'a', options(0.1), options(0.2))
    assert 'ReduceOnPlateauLR follows the scores' in message
    assert 'param_scheduler.0.factor=0.2, was 0.1' in message
    _, lines, _ = resumed(tmp_path / 'b', options(0.1), options(0.1))
    assert lines == [f'train_cfg.max_iters={LENGTH}, was {PAUSE}']


def test_the_same_options_say_and_change_nothing(tmp_path):
    # A plain list of numbers, a tuple and a counter: each as it is in a file.
    schedule = of('MultiStepLR', milestones=[2, 4, 9])
    schedule += of('CosineRestartLR', periods=[6, 6], restart_weights=(1, 1), eta_min=0)
    options = dict(schedule=schedule)
    trained(tmp_path, **options)
    (tmp_path / f'iter_{LENGTH}.pth').unlink()
    _, said, _ = trained(tmp_path, resume=True, **options)
    assert not [text for text in said if 'resumed with' in text]


# Averages


def averaged(momentum, **more):
    return dict(custom_hooks=[dict(type='EMAHook', momentum=momentum, **more)])


def test_another_momentum_of_the_averages_applies(tmp_path):
    runner, lines, _ = resumed(tmp_path, averaged(0.1), averaged(0.2))
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    assert hook.ema_model.momentum == 0.2
    assert 'EMAHook momentum=0.2, was 0.1' in lines


def test_without_averages_a_run_goes_on_from_its_own_weights(tmp_path):
    options = dict(length=PAUSE)
    trained(tmp_path / 'a', **options, **averaged(0.1))
    saved = torch.load(tmp_path / 'a' / f'iter_{PAUSE}.pth', weights_only=True)
    runner, said, _ = trained(tmp_path / 'a', resume=True, **options)
    found = runner.model.state_dict()
    for key, value in found.items():
        assert torch.equal(value, saved['ema_state_dict'][f'module.{key}'])
        assert not torch.equal(value, saved['state_dict'][key])
    assert any('no EMAHook: from the weights of the training' in text for text in said)


# The loss scale of mmengine's wrapper for GPUs


def test_factors_and_a_fixed_loss_scale_are_the_configs():
    wrapper = object.__new__(AmpOptimWrapper)
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=8.0, growth_factor=3.0)
    wrapper._scale_update_param = None
    saved = torch.amp.GradScaler('cpu', init_scale=64.0).state_dict()
    state = dict(loss_scaler=saved)
    assert list(compare_loss_scale(wrapper, state)) == [
        'optim_wrapper.loss_scale.growth_factor=3, was 2'
    ]
    assert (saved['scale'], saved['growth_factor']) == (64.0, 3.0)
    wrapper._scale_update_param = 8.0
    assert list(compare_loss_scale(wrapper, state)) == [
        'optim_wrapper.loss_scale.scale=8, was 64'
    ]
    wrapper.loss_scaler.load_state_dict(saved)
    assert wrapper.loss_scaler.get_scale() == 8.0
    assert not list(compare_loss_scale(wrapper, state))


def test_of_several_optimisers_the_log_says_that_nothing_is_compared():
    weights = torch.nn.Parameter(torch.ones(1))
    wrapper = OptimWrapper(torch.optim.SGD([weights], lr=1.0))
    runner = SimpleNamespace(optim_wrapper=OptimWrapperDict(one=wrapper))
    assert find_changes(runner, {}, None).lines == [
        "several optimisers: their options are the checkpoint's"
    ]
