import copy

import pytest
import torch
from tiny_roadmap import ABLATION, RECIPE, short

from illama_seg.backbones import ILLaMA
from illama_seg.errors import UserError
from illama_seg.studies.ablations.many_runs import train_runs
from illama_seg.studies.ablations.roadmap import roadmap_runs

CONSTANT = 'soft mask: constant'


@pytest.fixture(scope='module')
def runs():
    return short(roadmap_runs(RECIPE, ABLATION))


def some(runs, *names):
    return {name: copy.deepcopy(runs[name]) for name in names}


@pytest.mark.slow
def test_two_processes_give_what_one_gives_bit_for_bit(runs, tmp_path):
    mixing = some(runs, '8 mixing')
    threads = torch.get_num_threads()
    one = train_runs(mixing, [0, 1], tmp_path / 'one', num_workers=1)
    two = train_runs(mixing, [0, 1], tmp_path / 'two', num_workers=2)
    assert one == two
    assert one['8 mixing'][0]['loss'] != one['8 mixing'][1]['loss']
    assert torch.get_num_threads() == threads


def test_a_failing_run_is_named_and_the_finished_ones_are_kept(runs, tmp_path):
    two = some(runs, '4 causal', '8 mixing')
    two['8 mixing'].model.head.num_classes = 5
    with pytest.raises(ValueError, match=r'8 mixing, seed 0: .*num_classes=5'):
        train_runs(two, [0], tmp_path, num_workers=1)
    assert [path.parts[-3] for path in tmp_path.rglob('record.json')] == ['4_causal']


@pytest.mark.slow
def test_a_failure_in_another_process_is_named(runs, tmp_path):
    one = some(runs, '8 mixing')
    one['8 mixing'].param_scheduler[0].type = 'NoSuchLR'
    with pytest.raises(UserError, match=r'8 mixing, seed 0: .*NoSuchLR'):
        train_runs(one, [0], tmp_path, num_workers=2)


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(runs, tmp_path):
    two = some(runs, '4 causal', '9 soft mask')
    records = train_runs(two, [0], tmp_path, num_workers=1)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('record.json')}
    assert len(files) == 2
    assert train_runs(two, [0], tmp_path, num_workers=1) == records
    assert {path: path.stat().st_mtime_ns for path in files} == files
    # What a setting has changed is trained again.
    two['4 causal'].optim_wrapper.optimizer.lr = 1e-3
    train_runs(two, [0], tmp_path, num_workers=1)
    changed = [path for path, at in files.items() if path.stat().st_mtime_ns != at]
    assert [path.parts[-3] for path in changed] == ['4_causal']


def test_records_hold_a_value_for_each_epoch(runs, tmp_path):
    (record,) = train_runs(some(runs, CONSTANT), [3], tmp_path, num_workers=1)[CONSTANT]
    assert len(record['accuracy']) == len(record['loss']) == 2
    assert record['soft_mask_rate'] == pytest.approx([1.0, 0.0])
    assert all(0 <= value <= 100 for value in record['accuracy'])
    # Two iterations to an epoch, and to a value of the curve.
    epochs, losses = zip(*record['loss_curve'], strict=True)
    assert epochs == (1, 2)
    assert list(losses) == record['loss']


def test_every_epoch_is_evaluated_at_its_rate_and_at_0(runs, tmp_path, monkeypatch):
    rates, forward = [], ILLaMA.forward

    def noting(self, images):
        if not self.training:
            rates.append(self.soft_mask_rate)
        return forward(self, images)

    monkeypatch.setattr(ILLaMA, 'forward', noting)
    (record,) = train_runs(some(runs, CONSTANT), [0], tmp_path, num_workers=1)[CONSTANT]
    # The rehearsal, then epochs of one batch; the second one has no mask any more.
    assert rates == [1, 1, 0, 0]
    assert len(record['causal_accuracy']) == 2
    assert record['causal_accuracy'][1] == record['accuracy'][1]
