from pathlib import Path

from tiny_run import CONFIG, run_python, tiny_options

SCRIPT = Path(__file__).with_name('distributed_run.py')


def test_two_processes_train_one_model_without_unused_parameters(run, tmp_path):
    # DDP stops in the second iteration if a parameter of the first got no gradient.
    options = tiny_options(run.data)
    process = run_python(
        *('-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2'),
        *(SCRIPT, CONFIG, tmp_path / 'run', '--cfg-options', *options),
        cwd=tmp_path,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    for rank in range(2):
        assert f'rank {rank} of 2: weights agree' in process.stdout
    assert (tmp_path / 'run' / 'iter_2.pth').is_file()
