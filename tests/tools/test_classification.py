"""Classification through tools/train.py and tools/test.py, on digits."""

import argparse
import json
import shutil

import pytest
import torch
from mmengine.runner import Runner
from PIL import Image
from tiny_run import ROOT, fails, run_tool

from illama_seg.checkpoints import convert_checkpoint

CONFIG = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
OPTIONS = [
    'model.backbone.arch.embed_dims=16',
    'model.backbone.arch.num_layers=2',
    'model.head.in_channels=16',
    'train_dataloader.dataset.indices=33',
    'train_dataloader.batch_size=4',
    'val_dataloader.dataset.indices=10',
    'effective_batch=8',
    'param_scheduler.0.warmup=1',
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=1',
    'custom_hooks.0.cutoff=2',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
]


def train(work_dir, *options, more=()):
    arguments = ['--work-dir', work_dir, *more, '--cfg-options', *OPTIONS, *options]
    run_tool('train', CONFIG, *arguments)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('digits')
    train(work_dir)
    return work_dir


def scalars(work_dir):
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for log in logs for line in log.open()]


def test_training_accumulates_logs_the_soft_mask_and_the_accuracy(trained):
    # 4 whole updates of 2 iterations to an epoch, of 33 images.
    rows = [row for row in scalars(trained) if 'soft_mask_rate' in row]
    assert len(rows) == 16
    rates = [row['soft_mask_rate'] for row in rows]
    assert rates[0] == 1 and rates[-1] == 0 and rates[2] == pytest.approx(6 / 7)
    assert rates[::2] == rates[1::2]
    accuracies = [row for row in scalars(trained) if 'accuracy/top1' in row]
    assert len(accuracies) == 2 and 'accuracy/top5' in accuracies[0]
    assert (trained / 'epoch_2.pth').is_file()


def test_a_trained_classifier_is_tested(trained, tmp_path):
    options = ['--cfg-options', *OPTIONS]
    checkpoint = trained / 'epoch_2.pth'
    run_tool('test', CONFIG, checkpoint, '--work-dir', tmp_path, *options)
    (result,) = tmp_path.glob('*/*.json')
    assert set(json.loads(result.read_text())) >= {'accuracy/top1', 'accuracy/top5'}


def test_a_released_classifier_is_tested_as_it_is(trained, tmp_path):
    ours, options = trained / 'epoch_2.pth', ['--cfg-options', *OPTIONS]
    file = convert_checkpoint(ours, tmp_path / 'a.pth', names='released').target
    state = torch.load(file, weights_only=True)['model']
    # The authors' container.
    torch.save({'model': state, 'args': argparse.Namespace(lr=1)}, tmp_path / 'r.pth')
    results = []
    for name, checkpoint in (('ours', ours), ('released', tmp_path / 'r.pth')):
        work_dir = tmp_path / name
        run_tool('test', CONFIG, checkpoint, '--work-dir', work_dir, *options)
        (result,) = work_dir.glob('*/*.json')
        results.append(json.loads(result.read_text())['accuracy/top1'])
    assert results[0] == results[1]


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(trained, tmp_path):
    half = shutil.copy(trained / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(half))
    train(tmp_path, more=['--resume'])
    whole, resumed = (
        torch.load(folder / 'epoch_2.pth', weights_only=False)['state_dict']
        for folder in (trained, tmp_path)
    )
    for key, value in whole.items():
        assert torch.equal(resumed[key], value), key
    last = [
        [row for row in scalars(folder) if 'lr' in row][-1]
        for folder in (trained, tmp_path)
    ]
    assert last[0]['lr'] == last[1]['lr']
    assert last[0]['soft_mask_rate'] == last[1]['soft_mask_rate'] == 0


# Mistakes


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('effective_batch=10', 'effective_batch=10: expected a multiple of 4 images'),
        ('model.head.num_classes=12', 'the train data has 10 classes'),
        ('model.init_cfg.checkpoint=typo.pth', 'typo.pth'),
        ('train_dataloader.dataset.split=all', "split='all'"),
        ('val_evaluator.topk=(1,11)', 'val_evaluator.topk=(1, 11), but there are 10'),
        (
            'default_hooks.checkpoint.save_best=accuracy/top3',
            'but the validation gives accuracy/top1, accuracy/top5: set one of these',
        ),
    ],
)
def test_a_mistake_is_met_before_anything_is_built(option, text, tmp_path, monkeypatch):
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: pytest.fail('built'))
    options = ['--cfg-options', *OPTIONS, option]
    assert text in fails('train', CONFIG, '--work-dir', tmp_path, *options)


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('custom_hooks.0.cutoff=3', 'cutoff=3 epochs is longer than the training (2'),
        ('custom_hooks.0.mode=cosine', "mode='cosine': expected one of"),
        ('param_scheduler.0.warmup=2', 'warmup='),
        ('effective_batch=64', 'effective_batch=64: expected at most the 33'),
        ('model.head.in_channels=9', 'in_channels=9, but the backbone has 16'),
    ],
)
def test_a_mistake_that_shows_in_the_run_is_explained(option, text, tmp_path):
    options = ['--cfg-options', *OPTIONS, option]
    assert text in fails('train', CONFIG, '--work-dir', tmp_path, *options)


@pytest.mark.parametrize('option', ['--out', '--show-dir'])
def test_a_classification_cannot_be_painted(option, trained, tmp_path):
    checkpoint = trained / 'epoch_2.pth'
    message = fails('test', CONFIG, checkpoint, option, tmp_path / 'out')
    assert f'{option} {tmp_path}/out: ' in message and not (tmp_path / 'out').exists()


def test_a_classification_given_to_infer_is_told_what_it_can_do(trained, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    message = fails('infer', CONFIG, trained / 'epoch_2.pth', tmp_path / 'a.png')
    assert 'expected the config of a segmentation' in message
    assert 'tested' in message
