import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import CONFIG, ROOT, run_python, tiny_options

SCRIPT = Path(__file__).with_name('distributed_run.py')


def test_two_processes_train_one_model_without_unused_parameters(run, tmp_path):
    # DDP stops in the second iteration if a parameter of the first got no gradient.
    options = tiny_options(run.data)
    process = run_python(
        *('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
        *(SCRIPT, CONFIG, tmp_path / 'run', '--cfg-options', *options),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    for rank in range(2):
        assert f'rank {rank} of 2: weights agree' in process.stdout
    assert (tmp_path / 'run' / 'iter_2.pth').is_file()


def test_two_processes_train_one_classifier_with_the_batch_of_its_recipe(tmp_path):
    config = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
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
    process = run_python(
        *('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
        *(SCRIPT, config, tmp_path / 'run', '--cfg-options', *options),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stderr
    for rank in range(2):
        assert f'rank {rank} of 2: weights agree' in process.stdout
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [row['soft_mask_rate'] for row in rows if 'soft_mask_rate' in row]
    # 70 // 16 = 4 updates of 2 iterations, 2 x 4 images in each.
    expected = [1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0]
    assert [round(rate, 6) for rate in rates] == [round(rate, 6) for rate in expected]


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
