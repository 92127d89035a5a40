import json
import multiprocessing
import os
import signal
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_long_runs import At, differing, ended, in_child
from torch.utils.data import DataLoader
from toy_run import Messages, toy

from illama_seg.apis.command_line import run
from illama_seg.engine import EXIT_CODE, Interrupted
from illama_seg.engine.long_runs.interruption import ShieldedWorker
from illama_seg.engine.long_runs.newest import newest_checkpoint

EMA = dict(custom_hooks=[dict(type='EMAHook', momentum=0.3)])


def signal_self(runner, number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def interrupted(runner, *hooks):
    """Train until it leaves; what it logged."""
    for hook in hooks:
        runner.register_hook(hook)
    messages = Messages(runner)
    with pytest.raises(SystemExit) as error:
        runner.train()
    assert error.value.code == EXIT_CODE == 75
    return str(messages)


def whole(folder, **options):
    toy(folder, **options).train()
    return newest_checkpoint(folder)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_after_the_whole_update_and_exits(tmp_path, number):
    options = dict(accumulate=4, checkpoint=dict(interval=100), **EMA)
    ask = At(2, lambda runner: signal_self(runner, number))
    text = interrupted(toy(tmp_path / 'a', **options), ask)
    assert f'{number.name}: saved after iteration 4' in text and 'resume=True' in text
    assert newest_checkpoint(tmp_path / 'a').name == 'iter_4.pth'
    toy(tmp_path / 'a', resume=True, **options).train()
    expected = whole(tmp_path / 'b', **options)
    assert not differing(newest_checkpoint(tmp_path / 'a'), expected)


def test_the_handlers_are_as_before_when_a_training_has_ended(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    toy(tmp_path / 'a').train()
    interrupted(toy(tmp_path / 'b'), At(3, signal_self))
    after = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


def test_an_epoch_is_gone_on_with_in_its_middle_without_an_image_twice(tmp_path):
    seen = []

    def note(runner, batch):
        seen.extend(sample.sample_idx for sample in batch['data_samples'])

    class Note(At):
        def __init__(self):
            self.priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            assert batch_idx == runner.iter % 8
            note(runner, data_batch)

    options = dict(by_epoch=True, checkpoint=dict(max_keep_ckpts=2), workers=2)
    interrupted(toy(tmp_path / 'a', **options), At(11, signal_self), Note())
    # Two epochs of 8 iterations; 22 images are seen, prefetched ones do not count.
    assert len(seen) == 22
    names = sorted(p.name for p in (tmp_path / 'a').glob('*.pth'))
    assert names == ['epoch_1.pth', 'iter_11.pth']
    runner = toy(tmp_path / 'a', resume=True, **options)
    runner.register_hook(Note())
    runner.train()
    assert sorted(seen[:16]) == sorted(seen[16:]) == list(range(16))
    assert seen[:16] != seen[16:]
    # Its place is taken by the next whole epoch's.
    names = sorted(p.name for p in (tmp_path / 'a').glob('*.pth'))
    assert names == ['epoch_1.pth', 'epoch_2.pth']
    expected = whole(tmp_path / 'b', **options)
    assert not differing(tmp_path / 'a' / 'epoch_2.pth', expected)


def test_another_folder_that_goes_on_leaves_the_interrupted_checkpoint(tmp_path):
    options = dict(by_epoch=True)
    interrupted(toy(tmp_path / 'a', **options), At(11, signal_self))
    left = tmp_path / 'a' / 'iter_11.pth'
    toy(tmp_path / 'b', resume=True, load_from=str(left), **options).train()
    assert left.is_file() and (tmp_path / 'b' / 'epoch_2.pth').is_file()


def test_a_validation_is_broken_off_and_done_first_by_the_resumed_run(tmp_path):
    options = dict(
        train_cfg=dict(val_interval=4), checkpoint=dict(save_best='toy/top'), **EMA
    )
    ask = At(4, signal_self, 'after_val_iter')
    interrupted(toy(tmp_path / 'a', **options), ask)
    assert not list((tmp_path / 'a').glob('best*'))
    best = []

    def note(runner):
        best.extend(path.name for path in (tmp_path / 'a').glob('best*'))

    runner = toy(tmp_path / 'a', resume=True, **options)
    runner.register_hook(At(5, note))
    runner.train()
    assert best == ['best_toy_top_iter_4.pth']
    expected = whole(tmp_path / 'b', **options)
    assert not differing(tmp_path / 'a' / 'iter_8.pth', expected)


class Validations(At):
    """Iterations after which there was one, to the end."""

    def __init__(self):
        self.priority, self.done = 'LOWEST', []

    def after_val_epoch(self, runner, metrics=None):
        self.done.append((runner.epoch, runner.iter))


@pytest.mark.parametrize('iteration', [4, 8])
def test_a_signal_right_before_a_validation_leaves_it_to_the_resumed_run(
    tmp_path, iteration
):
    options = dict(
        train_cfg=dict(val_interval=4), checkpoint=dict(save_best='toy/top'), **EMA
    )
    first, second = Validations(), Validations()
    interrupted(toy(tmp_path / 'a', **options), At(iteration, signal_self), first)
    runner = toy(tmp_path / 'a', resume=True, **options)
    runner.register_hook(second)
    runner.train()
    assert [done for _, done in first.done + second.done] == [4, 8]
    expected = whole(tmp_path / 'b', **options)
    assert not differing(tmp_path / 'a' / 'iter_8.pth', expected)


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_run_killed_in_a_validation_does_it_again(tmp_path, by_epoch):
    options = dict(by_epoch=by_epoch, train_cfg=dict(val_interval=1 if by_epoch else 4))
    options['checkpoint'] = dict(save_best='toy/top')

    class Die(At):
        def __init__(self):
            self.priority = 'HIGHEST'

        def before_val_epoch(self, runner):
            raise KeyboardInterrupt

    runner, found = toy(tmp_path, **options), Validations()
    runner.register_hook(Die())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    runner._hooks = []  # its end is a kill: nothing of it goes on
    runner = toy(tmp_path, resume=True, **options)
    runner.register_hook(found)
    runner.train()
    assert found.done == ([(1, 8), (2, 16)] if by_epoch else [(0, 4), (0, 8)])
    # None is due in those that a validation wrote, nor in the last one.
    again = Validations()
    runner = toy(tmp_path, resume=True, **options)
    runner.register_hook(again)
    runner.train()
    assert not again.done


def test_a_full_disk_at_the_signal_is_said(tmp_path):
    def fill_and_ask(runner):
        (tmp_path / 'iter_3.pth.part').symlink_to('/dev/full')
        signal_self(runner)

    runner = toy(tmp_path)
    messages = Messages(runner)
    runner.register_hook(At(3, fill_and_ask))
    with pytest.raises(SystemExit) as error:
        runner.train()
    assert error.value.code == 1
    assert 'No space left' in str(messages) and 'nothing could be saved' in str(
        messages
    )
    assert newest_checkpoint(tmp_path).name == 'iter_2.pth'


def test_the_exit_code_gets_through_the_tool():
    def interrupt():
        raise Interrupted(EXIT_CODE)

    with pytest.raises(SystemExit) as error:
        run(lambda _: interrupt(), Namespace())
    assert error.value.code == 75


# Workers: Slurm and torchrun signal them too.


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, index):
        return index


def test_loader_workers_outlive_a_signal_to_all_processes_but_not_their_parents():
    loader = DataLoader(
        Slow(), batch_size=1, num_workers=2, worker_init_fn=ShieldedWorker(None)
    )
    batches = iter(loader)
    next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    pids = [str(worker.pid) for worker in workers]
    time.sleep(0.2)  # until both wait for signals
    # By another process, as Slurm's.
    for name in ('-TERM', '-USR1'):
        assert os.spawnlp(os.P_WAIT, 'kill', 'kill', name, *pids) == 0
    assert [int(batch) for batch in batches] == list(range(1, 100))
    loader = DataLoader(Slow(), num_workers=1, worker_init_fn=ShieldedWorker(None))
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    time.sleep(0.2)
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def test_a_signal_to_the_whole_group_saves_though_workers_load(tmp_path):
    def function(pipe):
        os.setsid()
        runner = toy(tmp_path / 'run', workers=2, length=100)
        runner.register_hook(At(5, lambda runner: os.killpg(0, signal.SIGTERM)))
        runner.train()

    pid, _ = in_child(function, tmp_path / 'output.txt')
    assert ended(pid, 60) == 75, (tmp_path / 'output.txt').read_text()
    assert newest_checkpoint(tmp_path / 'run').name == 'iter_5.pth'


# Several processes


def test_processes_leave_together_whichever_got_the_signal(tmp_path):
    def train_as(rank):
        def function(pipe):
            dist.init_process_group(
                'gloo', init_method=f'file://{tmp_path}/store', rank=rank, world_size=2
            )
            os.environ['RANK'] = str(rank)
            runner = toy(tmp_path / 'run', length=40, checkpoint=dict(interval=100))
            runner.register_hook(At(3, signal_self if rank else lambda runner: None))
            try:
                runner.train()
            finally:
                (tmp_path / f'left_{rank}.json').write_text(json.dumps(runner.iter))

        return in_child(function, tmp_path / f'output_{rank}.txt')

    children = [train_as(rank) for rank in range(2)]
    codes = [ended(pid, 60) for pid, _ in children]
    outputs = [(tmp_path / f'output_{rank}.txt').read_text() for rank in range(2)]
    assert codes == [75, 75], outputs
    left = {json.loads((tmp_path / f'left_{rank}.json').read_text()) for rank in (0, 1)}
    assert len(left) == 1 and left.pop() + 1 == int(
        Path(newest_checkpoint(tmp_path / 'run')).stem.removeprefix('iter_')
    )
