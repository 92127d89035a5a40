"""The recipes of Table 16 train from CIFAR's archives as they are published."""

import json
import tarfile

import pytest
import torch
from test_arrays import COUNT, md5, write_binary
from tiny_run import ROOT, run_tool

from illama_seg.pretrain import CIFAR10Dataset, CIFAR100Dataset

TRANSFER = ROOT / 'configs' / 'transfer'
BATCH = 2  # mixed in pairs
KINDS = {10: CIFAR10Dataset, 100: CIFAR100Dataset}
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# A model that is small; the data and what is done with them stay the recipe's.
OPTIONS = [
    'model.init_cfg=None',
    'model.backbone.arch._delete_=True',
    'model.backbone.arch.embed_dims=24',
    'model.backbone.arch.num_layers=2',
    'model.backbone.arch.num_heads=3',
    'model.head.in_channels=24',
    *(f'{loader}.num_workers=0' for loader in LOADERS),
    *(f'{loader}.persistent_workers=False' for loader in LOADERS),
    f'train_dataloader.batch_size={BATCH}',
    f'effective_batch={BATCH}',
    'param_scheduler.0.warmup=0',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Write CIFAR-10's or CIFAR-100's binary archive in small; returns its folder."""

    def write(number):
        source = write_binary(tmp_path / 'source', number)
        folder, name, _ = KINDS[number].BINARY
        path = tmp_path / 'cifar' / name
        path.parent.mkdir()
        with tarfile.open(path, 'w:gz') as file:
            file.add(source, folder)
        monkeypatch.setattr(KINDS[number], 'BINARY', (folder, name, md5(path)))
        return path.parent

    return write


@pytest.mark.parametrize(
    ('model', 'number'),
    [
        ('illama', 10),
        ('vit', 100),
        pytest.param('illama', 100, marks=pytest.mark.slow),
        pytest.param('vit', 10, marks=pytest.mark.slow),
    ],
)
def test_a_recipe_trains_and_tests_from_the_archive(model, number, archive, tmp_path):
    root = archive(number)
    config = TRANSFER / f'{model}_tiny_cifar{number}.py'
    options = [*OPTIONS, *(f'{loader}.dataset.data_root={root}' for loader in LOADERS)]
    if model == 'illama':
        options.append('custom_hooks.0.cutoff=1')
    work_dir = ['--work-dir', tmp_path / 'run', '--cfg-options', *options]
    run_tool('train', config, *work_dir)
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == COUNT * len(KINDS[number].FILES['train']) // BATCH
    assert ('soft_mask_rate' in rows[0]) == (model == 'illama')
    assert 0 <= rows[-1]['accuracy/top1'] <= rows[-1]['accuracy/top5'] <= 100
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    head = torch.load(checkpoint, weights_only=False)['state_dict']['head.fc.weight']
    assert head.shape == (number, 24)
    run_tool('test', config, checkpoint, *work_dir)
    (result,) = set((tmp_path / 'run').glob('*/*.json'))
    assert json.loads(result.read_text())['accuracy/top1'] == rows[-1]['accuracy/top1']
