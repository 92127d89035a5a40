import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import CONFIG, ROOT

DIGITS = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'


def put_on_path(folder, *names):
    """The stand-in for Slurm, under these names, found before all others."""
    folder.mkdir()
    script = Path(__file__).with_name('slurm.py').read_text()
    for name in names:
        (folder / name).write_text(f'#!{sys.executable}\n{script}')
        (folder / name).chmod(0o755)
    return os.pathsep.join([str(folder), os.environ['PATH']])


def free_port():
    with socket.socket() as found:
        found.bind(('localhost', 0))
        return str(found.getsockname()[1])


@pytest.mark.slow
def test_slurm_trains_one_classifier_with_the_batch_of_its_recipe(tmp_path):
    # Nothing of Slurm is here but its variables: srun and scontrol are stand-ins.
    options = (
        'model.backbone.arch.num_layers=1',
        'train_dataloader.batch_size=4',
        'train_dataloader.dataset.indices=70',
        'effective_batch=16',
        'param_scheduler.0.warmup=0',
        'train_cfg.max_epochs=1',
        'custom_hooks.0.cutoff=1',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.logger.interval=1',
        'val_dataloader.dataset.indices=8',
    )
    path = put_on_path(tmp_path / 'bin', 'srun', 'scontrol', 'python')
    arguments = ['a_partition', 'a_job', DIGITS, '--work-dir', tmp_path / 'run']
    environment = dict(PATH=path, GPUS='2', SRUN_ARGS='--time=1:00 --mem=0')
    process = subprocess.run(
        [ROOT / 'tools' / 'slurm_train.sh', *arguments, '--cfg-options', *options],
        env=os.environ | environment | dict(MASTER_PORT=free_port()),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    for option in ('--partition=a_partition', '--job-name=a_job', '--gres=gpu:2'):
        assert option in process.stdout
    assert '--ntasks-per-node=2' in process.stdout and '--mem=0' in process.stdout
    said = 'no GPU: 2 processes compute on CPUs, over gloo'
    assert (process.stdout + process.stderr).count(said) == 1
    assert 'batch of 16: 2 processes x 4 images x 2 iterations' in process.stdout
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [row['soft_mask_rate'] for row in rows if 'soft_mask_rate' in row]
    # 70 // 16 = 4 updates of 2 iterations, 2 x 4 images in each.
    expected = [1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0]
    assert [round(rate, 6) for rate in rates] == [round(rate, 6) for rate in expected]
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('arguments', [('train', CONFIG), ('test', CONFIG, 'x.pth')])
def test_more_processes_than_gpus_are_refused_with_both_numbers(arguments):
    tool, *files = arguments
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    process = subprocess.run(
        [ROOT / 'tools' / f'dist_{tool}.sh', *files, '99'],
        env=os.environ | {'PATH': path},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    found = torch.cuda.device_count()
    assert f'NUM_GPUS=99, but this machine has {found}' in process.stderr
    assert f'tools/{tool}.py' in process.stderr and 'Traceback' not in process.stderr
