import json

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from tiny_long_runs import At
from toy_run import Messages, ToyModel, toy

from illama_seg.apis.runs.resuming import newest_checkpoint
from illama_seg.engine import FiniteLossHook
from illama_seg.errors import UserError


def spoil_loss(monkeypatch, at):
    """The loss of these forward passes in training is not a number."""
    forward, calls = ToyModel.forward, []

    def spoilt(self, inputs, data_samples=None, mode='tensor'):
        out = forward(self, inputs, data_samples, mode)
        if mode == 'loss':
            calls.append(1)
            if len(calls) in at:
                out['loss'] = out['loss'] * torch.nan
        return out

    monkeypatch.setattr(ToyModel, 'forward', spoilt)


@pytest.mark.parametrize('accumulate', [1, 3])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(
    tmp_path, monkeypatch, accumulate
):
    spoil_loss(monkeypatch, {5})
    runner, batches = toy(tmp_path, accumulate=accumulate), []
    runner.register_hook(
        At(4, lambda runner: batches.append(runner.model.linear.weight.clone()))
    )
    with pytest.raises(ValueError, match=r'loss is nan in iteration 5: the weights'):
        runner.train()
    assert all(p.isfinite().all() for p in runner.model.parameters())
    moments = runner.optim_wrapper.optimizer.state.values()
    assert all(m['exp_avg'].isfinite().all() for m in moments)
    steps = {int(m['step']) for m in moments}
    assert steps == {4 // accumulate}
    assert newest_checkpoint(tmp_path).name == f'iter_{4 if accumulate == 1 else 3}.pth'


def test_the_files_of_the_batch_are_written_down(tmp_path, monkeypatch):
    spoil_loss(monkeypatch, {3})
    runner, batches = toy(tmp_path), []

    class Note(At):
        def __init__(self):
            self.priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            batches.append([sample.img_path for sample in data_batch['data_samples']])

    runner.register_hook(Note())
    with pytest.raises(UserError) as error:
        runner.train()
    assert f'{tmp_path}/non_finite_loss.json' in str(error.value)
    record = json.loads((tmp_path / 'non_finite_loss.json').read_text())
    assert record['iteration'] == 3 and record['loss'] == 'nan' and record['seed'] == 1
    assert record['files'] == batches[2]
    assert record['files_of_the_batch_before'] == batches[1]
    assert len(set(batches[1] + batches[2])) == 4


def test_each_process_writes_a_file_of_its_own(tmp_path, monkeypatch):
    spoil_loss(monkeypatch, {1})
    runner = toy(tmp_path)
    runner._rank = 3
    with pytest.raises(ValueError, match=r'non_finite_loss_rank_3\.json'):
        runner.train()
    assert [p.name for p in tmp_path.glob('*.json')] == ['non_finite_loss_rank_3.json']


def test_on_a_full_disk_the_names_of_the_files_are_in_the_log(tmp_path, monkeypatch):
    spoil_loss(monkeypatch, {1})
    runner = toy(tmp_path)
    messages = Messages(runner)
    (tmp_path / 'non_finite_loss.json').symlink_to('/dev/full')
    with pytest.raises(ValueError, match=r'loss is nan in iteration 1: the weights'):
        runner.train()
    (text,) = (t for t in messages.texts if 'non_finite_loss.json' in t)
    assert 'could not be written' in text and 'No space left' in text
    files = json.loads(text[text.index('{') :])['files']
    assert len(files) == 2 and all(name.startswith('image_') for name in files)


@OPTIM_WRAPPERS.register_module(force=True)
class ScaledWrapper(OptimWrapper):
    """As AmpOptimWrapper, which needs a GPU: no step where gradients are not finite."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler, self.skipped = object(), 0

    def step(self, **kwargs):
        groups = self.optimizer.param_groups
        if all(p.grad.isfinite().all() for group in groups for p in group['params']):
            super().step(**kwargs)
        else:
            self.skipped += 1


SCALED = dict(
    optim_wrapper=dict(type='ScaledWrapper', optimizer=dict(type='AdamW', lr=0.01))
)


def test_steps_that_a_loss_scale_skips_are_no_failure(tmp_path, monkeypatch):
    spoil_loss(monkeypatch, {1, 2, 5})
    runner = toy(tmp_path, **SCALED)
    runner.train()
    assert runner.optim_wrapper.skipped == 3
    assert newest_checkpoint(tmp_path).name == 'iter_8.pth'


def test_a_loss_that_stays_no_number_under_a_loss_scale_is_one(tmp_path, monkeypatch):
    spoil_loss(monkeypatch, {1, 2, *range(4, 30)})
    runner = toy(tmp_path, length=30, **SCALED)
    with pytest.raises(ValueError, match='in iteration 23'):
        runner.train()
    assert all(p.isfinite().all() for p in runner.model.parameters())


def test_patience_of_none_is_refused():
    with pytest.raises(ValueError, match='patience=0'):
        FiniteLossHook(0)
