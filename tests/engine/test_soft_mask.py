import json

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from tiny_run import start_fresh
from torch import nn
from torch._dynamo.testing import CompileCounter

from illama_seg.backbones import ILLaMA
from illama_seg.engine import SoftMaskHook

EPOCH = 4  # iterations
ARCH = dict(embed_dims=8, num_layers=1, num_heads=2)


class Classifier(BaseModel):
    """The real backbone; records its rate in training and validation."""

    def __init__(self):
        super().__init__()
        self.backbone = ILLaMA(
            ARCH, img_size=4, patch_size=2, out_indices=-1, out_type='cls_token'
        )
        self.rates, self.val_rates = [], []

    def forward(self, inputs, data_samples=None, mode='tensor'):
        rate = self.backbone.soft_mask_rate
        (self.rates if mode == 'loss' else self.val_rates).append(rate)
        if mode != 'loss':
            return [None]
        return dict(loss=self.backbone(torch.stack(inputs))[0].square().mean())


class Wrapper(nn.Module):
    """As DistributedDataParallel and torch.compile wrap a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def train_step(self, data, optim_wrapper):
        return self.module.train_step(data, optim_wrapper)


def train(tmp_path, hook, epochs=5, accumulate=1, model=None, hooks=(), **settings):
    start_fresh()
    data = [dict(inputs=torch.ones(3, 4, 4)) for _ in range(EPOCH)]
    val = {}
    if settings.pop('with_val', False):
        val = dict(
            val_dataloader=dict(dataset=data[:1], sampler=SAMPLER, batch_size=1),
            val_cfg=dict(),
            val_evaluator=[],
        )
    runner = Runner(
        model=model or Classifier(),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=data, sampler=SAMPLER, batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1), accumulative_counts=accumulate
        ),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[hook, *hooks],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        log_level='ERROR',
        **val,
        **settings,
    )
    runner.train()
    return runner


SAMPLER = dict(type='DefaultSampler', shuffle=False)
LINEAR = dict(type='SoftMaskHook', mode='linear', cutoff=3)


def expected(mode, cutoff, total, accumulate=1):
    """numpy's own linspace over the updates, repeated over each one's iterations."""
    updates = cutoff // accumulate
    first = np.ones(updates) if mode == 'constant' else np.linspace(1, 0, updates)
    rates = np.repeat(first, accumulate)
    return np.concatenate([rates, np.zeros(total - len(rates))])


class FakeRunner:
    """What the hook asks of a runner."""

    def __init__(self, epoch_length, max_iters, accumulate=1, iteration=0):
        self.train_dataloader, self.max_iters = range(epoch_length), max_iters
        self.optim_wrapper = nn.Identity()
        self.optim_wrapper._accumulative_counts = accumulate
        self.iter, self.hooks = iteration, []
        self.model = nn.Sequential(
            ILLaMA(ARCH, img_size=4, patch_size=2, out_indices=0)
        )


@given(
    mode=st.sampled_from(['constant', 'linear']),
    cutoff=st.integers(0, 6),
    updates=st.integers(1, 30),
    accumulate=st.integers(1, 4),
    by_epoch=st.booleans(),
)
def test_the_rate_is_linspace_over_the_updates_before_the_cutoff(
    mode, cutoff, updates, accumulate, by_epoch
):
    length, total = updates * accumulate, 6 * updates * accumulate
    unit = 1 if by_epoch else length
    hook = SoftMaskHook(mode, cutoff * unit, by_epoch)
    hook.before_train(FakeRunner(length, total, accumulate))
    found = [hook.values_at(iteration)[0] for iteration in range(total)]
    wanted = expected(mode, cutoff * length, total, accumulate)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_resumed_run_starts_at_the_rate_of_its_iteration():
    runner = FakeRunner(4, 20, iteration=9)
    SoftMaskHook('linear', 4).before_train(runner)
    assert runner.model[0].soft_mask_rate == np.linspace(1, 0, 16)[9]


@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize('mode', ['constant', 'linear'])
def test_a_training_sees_the_schedule_and_logs_it(mode, accumulate, tmp_path):
    hook = dict(type='SoftMaskHook', mode=mode, cutoff=3)
    runner = train(tmp_path, hook, accumulate=accumulate)
    rates = expected(mode, 3 * EPOCH, 5 * EPOCH, accumulate)
    np.testing.assert_allclose(runner.model.rates, rates, atol=1e-12)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    logged = [json.loads(line)['soft_mask_rate'] for line in log.open()]
    np.testing.assert_allclose(logged, rates, atol=1e-12)
    assert runner.model.backbone.soft_mask_rate == 0


def test_validation_in_training_uses_the_rate_of_the_moment_and_a_test_none(tmp_path):
    hook = dict(type='SoftMaskHook', mode='constant', cutoff=5)
    runner = train(tmp_path, hook, with_val=True)
    assert runner.model.val_rates == [1.0] * 5
    assert runner.model.backbone.soft_mask_rate == 0
    runner.model.backbone.set_soft_mask_rate(0.5)
    runner.call_hook('before_test')
    assert runner.model.backbone.soft_mask_rate == 0


class Spy(EMAHook):
    """An average of the model that notes its own rate."""

    def before_train(self, runner):
        super().before_train(runner)
        self.rates = []

    def after_train_iter(self, runner, *args, **kwargs):
        super().after_train_iter(runner, *args, **kwargs)
        self.rates.append(self.ema_model.module.backbone.soft_mask_rate)


def test_wrapped_models_and_their_averages_get_the_rate(tmp_path):
    HOOKS.register_module(module=Spy, force=True)
    runner = train(tmp_path, LINEAR, hooks=[dict(type='Spy')])
    (spy,) = (hook for hook in runner.hooks if isinstance(hook, Spy))
    wanted = expected('linear', 3 * EPOCH, 5 * EPOCH)
    np.testing.assert_allclose(spy.rates, wanted, atol=1e-12)
    fake = FakeRunner(4, 20, iteration=1)
    fake.model = Wrapper(Wrapper(fake.model))
    SoftMaskHook('linear', 4).before_train(fake)
    assert fake.model.module.module[0].soft_mask_rate == np.linspace(1, 0, 16)[1]


def test_a_checkpoint_holds_no_rate(tmp_path):
    runner = train(tmp_path, dict(type='SoftMaskHook', mode='constant', cutoff=5))
    state = torch.load(tmp_path / 'epoch_5.pth', weights_only=False)
    assert not any('rate' in key for key in state['state_dict'])
    again = Classifier()
    again.load_state_dict(state['state_dict'])
    assert again.backbone.soft_mask_rate == 0
    assert max(runner.model.rates) == 1


def test_new_rates_compile_nothing_anew():
    torch._dynamo.reset()
    counter = CompileCounter()
    runner = FakeRunner(4, 40)
    compiled = runner.model = torch.compile(runner.model, backend=counter)
    hook = SoftMaskHook('linear', 8)
    hook.before_train(runner)
    outputs = []
    for runner.iter in range(6):
        hook._set(runner, hook.values_at(runner.iter))
        outputs.append(compiled(torch.linspace(-1, 1, 48).view(1, 3, 4, 4))[0])
        if runner.iter == 0:
            frames = counter.frame_count
    assert counter.frame_count == frames > 0


# Mistakes


@pytest.mark.parametrize('mode', ['cosine', 'Linear', ''])
def test_an_unknown_mode_is_refused(mode):
    with pytest.raises(ValueError, match=f'mode={mode!r}: .*constant.*linear'):
        SoftMaskHook(mode, 3)


def test_a_negative_cutoff_is_refused():
    with pytest.raises(ValueError, match='cutoff=-1'):
        SoftMaskHook('linear', -1)


@pytest.mark.parametrize(
    ('by_epoch', 'cutoff', 'text'),
    [(True, 6, r'6 epochs .*\(5 epochs\)'), (False, 21, r'21 iter.*\(20 iter')],
)
def test_a_cutoff_after_the_end_is_refused(by_epoch, cutoff, text):
    with pytest.raises(ValueError, match=text):
        SoftMaskHook('linear', cutoff, by_epoch).before_train(FakeRunner(4, 20))


def test_a_model_without_a_soft_mask_is_refused():
    runner = FakeRunner(4, 20)
    runner.model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r'no module .* set_soft_mask_rate'):
        SoftMaskHook('linear', 2).before_train(runner)


def test_the_visualizers_own_backends_all_get_the_scalar(tmp_path):
    written = []
    hook = dict(type='SoftMaskHook', mode='linear', cutoff=1)
    original = Visualizer.add_scalars
    try:
        Visualizer.add_scalars = lambda self, tags, **_: written.append(tags)
        train(tmp_path, hook, epochs=1)
    finally:
        Visualizer.add_scalars = original
    assert [round(tags['soft_mask_rate'], 3) for tags in written] == [
        1,
        0.667,
        0.333,
        0,
    ]


def test_the_schedule_ends_at_the_values_of_the_config(tmp_path):
    """Any way: here the mask opens while the sums begin to divide."""
    hook = dict(type='SoftMaskHook', mode='linear', cutoff=2, rate=0.2, norm=0.75)
    model = Classifier()
    model.backbone.set_soft_mask_rate(0.8)
    model.backbone.set_soft_mask_norm(0.25)
    runner = train(tmp_path, hook, epochs=3, model=model)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.open()]
    for name, first, last in (('rate', 0.2, 0.8), ('norm', 0.75, 0.25)):
        wanted = [*np.linspace(first, last, 2 * EPOCH), *[last] * EPOCH]
        found = [line[f'soft_mask_{name}'] for line in lines]
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    backbone = runner.model.backbone
    assert (backbone.soft_mask_rate, backbone.soft_mask_norm) == (0.8, 0.25)
    backbone.set_soft_mask_rate(0.0)
    runner.call_hook('before_test')
    assert backbone.soft_mask_rate == 0.8


def test_eq_2_becomes_eq_1_while_it_trains(tmp_path):
    hook = dict(type='SoftMaskHook', mode='linear', cutoff=3, rate=0.0, norm=0.0)
    model = Classifier()
    model.backbone.set_soft_mask_norm(1.0)
    trained = train(tmp_path, hook, model=model).model.backbone
    strict = ILLaMA(
        ARCH, 4, 2, out_indices=-1, out_type='cls_token', attn_mask='strict'
    )
    strict.load_state_dict(trained.state_dict())
    images = torch.randn(2, 3, 4, 8)
    torch.testing.assert_close(strict(images), trained(images))


def test_a_mask_that_opens_is_resumed_where_it_was():
    """The rate of an iteration, whatever the model's was when the run stopped."""
    for iteration, wanted in ((9, np.linspace(0, 1, 16)[9]), (17, 1.0)):
        runner = FakeRunner(4, 20, iteration=iteration)
        runner.model[0].set_soft_mask_rate(1.0)  # as its config has it
        hook = SoftMaskHook('linear', 4, rate=0.0)
        hook.before_train(runner)
        assert runner.model[0].soft_mask_rate == wanted
        hook.after_train(runner)
        assert runner.model[0].soft_mask_rate == 1


def test_at_once_is_a_cutoff_of_zero():
    runner = FakeRunner(4, 20)
    runner.model[0].set_soft_mask_rate(1.0)
    SoftMaskHook('linear', 0, rate=0.0).before_train(runner)
    assert runner.model[0].soft_mask_rate == 1


@pytest.mark.parametrize('name', ['rate', 'norm'])
def test_values_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=f'{name}=1.5: expected a number in'):
        SoftMaskHook('linear', 1, **{name: 1.5})
