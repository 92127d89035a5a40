import random
import shutil

import pytest
import torch
from kill_and_resume import killed_and_resumed
from safetensors.torch import save_file
from tiny_long_runs import KINDS, At, config, differing, newest, train
from tiny_run import make_ade20k
from toy_run import Messages, toy

from illama_seg.engine.long_runs.newest import newest_checkpoint


@pytest.fixture(scope='module', autouse=True)
def by_convolution():
    """Linear layers as some processors compute them; other tests take products."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('ILLAMA_SEG_LINEAR', 'convolution')
        yield


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_ade20k(tmp_path_factory.mktemp('data') / 'ade20k')


@pytest.fixture(scope='module')
def undisturbed(data, tmp_path_factory):
    """Kind -> folder of a run that was left alone, with all its checkpoints."""
    folders = {}

    def of(kind):
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            keep = ['default_hooks.checkpoint.max_keep_ckpts=-1']
            train(config(kind, data, folders[kind], options=keep))
        return folders[kind]

    return of


@pytest.mark.parametrize(('kind', 'start'), [(KINDS[0], 6), (KINDS[1], 4)])
def test_a_resumed_run_ends_bit_for_bit_as_an_undisturbed_one(
    undisturbed, data, tmp_path, kind, start
):
    # With other workers, and from an iteration inside an epoch.
    whole = undisturbed(kind)
    checkpoint = shutil.copy(whole / f'iter_{start}.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(checkpoint))
    runner = train(config(kind, data, tmp_path, workers=2), resume=True)
    assert runner.iter == 12
    assert not differing(newest(whole), newest(tmp_path))
    # And the training between them was one: all of it moved.
    moved = {n.split('.')[1] for n in differing(checkpoint, newest(whole))}
    assert {'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'} <= moved


@pytest.mark.slow
def test_a_classification_killed_at_a_random_moment_ends_the_same(
    undisturbed, data, tmp_path, rng
):
    work_dir = tmp_path / 'run'
    kills = killed_and_resumed('classification', data, work_dir, 0, 1, rng)
    assert len(kills) == 1
    whole = newest(undisturbed('classification'))
    assert not differing(whole, newest(work_dir))


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('kind', KINDS)
def test_a_run_killed_twice_at_random_moments_ends_the_same(
    undisturbed, data, tmp_path, kind, workers, rng
):
    work_dir = tmp_path / 'run'
    killed_and_resumed(kind, data, work_dir, workers, 2, rng)
    assert not differing(newest(undisturbed(kind)), newest(work_dir))


@pytest.fixture
def rng():
    return random.Random(7)


# What else a checkpoint needs


@pytest.mark.parametrize(
    ('by_epoch', 'rank_seeds'), [(False, False), (False, True), (True, True)]
)
def test_a_seed_that_was_drawn_is_the_resumed_runs_too(tmp_path, by_epoch, rank_seeds):
    options = dict(
        by_epoch=by_epoch,
        randomness=dict(seed=None, diff_rank_seed=rank_seeds),
        checkpoint=dict(by_epoch=False),
    )
    toy(tmp_path / 'a', **options).train()
    (tmp_path / 'b').mkdir()
    shutil.copy(tmp_path / 'a' / 'iter_6.pth', tmp_path / 'b')
    torch.manual_seed(1)
    toy(tmp_path / 'b', resume=True, **options).train()
    last = newest_checkpoint(tmp_path / 'a').name
    assert not differing(tmp_path / 'a' / last, tmp_path / 'b' / last)
    toy(tmp_path / 'c', **options).train()
    assert differing(tmp_path / 'a' / last, tmp_path / 'c' / last)


def test_gradients_of_an_unfinished_update_are_kept(tmp_path):
    # 8 iterations to an epoch, 3 to an update: the checkpoint falls between.
    options = dict(by_epoch=True, accumulate=3)
    toy(tmp_path / 'a', **options).train()
    (tmp_path / 'b').mkdir()
    shutil.copy(tmp_path / 'a' / 'epoch_1.pth', tmp_path / 'b')
    toy(tmp_path / 'b', resume=True, **options).train()
    assert not differing(tmp_path / 'a' / 'epoch_2.pth', tmp_path / 'b' / 'epoch_2.pth')


def test_validation_between_does_not_change_the_training(tmp_path):
    toy(tmp_path / 'a', workers=2).train()
    toy(tmp_path / 'b', train_cfg=dict(val_interval=1)).train()
    assert not differing(tmp_path / 'a' / 'iter_8.pth', tmp_path / 'b' / 'iter_8.pth')


def test_a_finite_sampler_in_an_iteration_based_loop_goes_on_in_its_pass(tmp_path):
    options = dict(length=20)

    def run(folder, **more):
        runner = toy(folder, **options, **more)
        runner._train_dataloader['sampler']['type'] = 'DefaultSampler'
        runner.train()

    run(tmp_path / 'a')
    (tmp_path / 'b').mkdir()
    shutil.copy(tmp_path / 'a' / 'iter_12.pth', tmp_path / 'b')
    run(tmp_path / 'b', resume=True)
    assert not differing(tmp_path / 'a' / 'iter_20.pth', tmp_path / 'b' / 'iter_20.pth')


def test_another_batch_size_goes_on_at_the_same_image_of_the_epoch(tmp_path):
    options = dict(by_epoch=True, checkpoint=dict(by_epoch=False, interval=4))
    toy(tmp_path, **options).train()
    # 4 batches of 2 images are 2 of 4.
    for name in ('iter_16.pth', 'iter_12.pth', 'iter_8.pth'):
        (tmp_path / name).unlink()
    runner = toy(tmp_path, resume=True, **options)
    runner._train_dataloader['batch_size'] = 4
    places = []

    class Note(At):
        def __init__(self):
            self.priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            places.append(
                (batch_idx, [s.sample_idx for s in data_batch['data_samples']])
            )

    runner.register_hook(Note())
    runner.train()
    assert [place for place, _ in places] == [2, 3, 0, 1, 2, 3]
    assert runner.iter == 8


class Images(At):
    """Which were trained on, batch by batch."""

    def __init__(self):
        self.priority, self.batches = 'HIGHEST', []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batches.append([s.sample_idx for s in data_batch['data_samples']])


@pytest.mark.parametrize(
    ('sampler', 'batch', 'iterations'),
    [('InfiniteSampler', 4, 3), ('DefaultSampler', 3, 2)],
)
def test_iterations_of_another_batch_size_go_on_at_the_same_image(
    tmp_path, sampler, batch, iterations
):
    # A pass is of 16 images, 10 of them before the change. Of the endless ones 22 are
    # no multiple of 4; of the others 6 are left of the pass.
    def seen(folder, size, length, resume=False):
        runner, images = toy(tmp_path / folder, length=length, resume=resume), Images()
        runner._train_dataloader['batch_size'] = size
        runner._train_dataloader['sampler']['type'] = sampler
        runner.register_hook(images)
        runner.train()
        assert {len(indices) for indices in images.batches} == {size}
        return [index for indices in images.batches for index in indices]

    found = seen('a', 2, 5)
    found += seen('a', batch, 5 + iterations, resume=True)
    rest = (40 - len(found)) // 2
    found += seen('a', 2, 5 + iterations + rest, resume=True)
    assert found == seen('b', 2, 20)


def test_a_checkpoint_of_mmengines_own_is_resumed(tmp_path):
    options = dict(by_epoch=True)
    toy(tmp_path, **options).train()
    (tmp_path / 'epoch_2.pth').unlink()
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    content.pop('resume')
    torch.save(content, tmp_path / 'epoch_1.pth')
    runner = toy(tmp_path, resume=True, **options)
    runner.train()
    assert runner.iter == 16 and runner.epoch == 2


def test_a_run_that_died_in_the_middle_of_writing_is_resumed(tmp_path, monkeypatch):
    """As if killed between the bytes and the name."""
    options = dict(length=6)

    def die(*_):
        raise KeyboardInterrupt

    runner = toy(tmp_path / 'a', **options)
    monkeypatch.setattr('illama_seg.engine.long_runs.checkpoint.os.replace', die)
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    monkeypatch.undo()
    assert [p.name for p in (tmp_path / 'a').glob('*.pth*')] == ['iter_2.pth.part']
    toy(tmp_path / 'a', resume=True, **options).train()
    toy(tmp_path / 'b', **options).train()
    assert not differing(tmp_path / 'a' / 'iter_6.pth', tmp_path / 'b' / 'iter_6.pth')


# Files that are whole, but no checkpoint of this training


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    toy(folder).train()
    return folder / 'iter_8.pth'


def resumed_from(file, work_dir, **more):
    return toy(work_dir, resume=True, length=12, load_from=str(file), **more)


@pytest.mark.parametrize(
    'name', ['weights.pth', 'published.pth', 'weights.safetensors']
)
def test_weights_alone_are_not_resumed(name, trained, tmp_path):
    file, content = tmp_path / name, torch.load(trained, weights_only=False)
    if name == 'published.pth':
        del content['optimizer']
        torch.save(content, file)
    elif name == 'weights.pth':
        torch.save(content['state_dict'], file)
    else:
        save_file(content['state_dict'], file)
    message = rf'{name} cannot be resumed: .*optimizer.* load_from=.*{name} and leave'
    with pytest.raises(ValueError, match=message):
        resumed_from(file, tmp_path / 'run').train()


@pytest.mark.parametrize('place', [None, -1, 2.5, 'two'])
def test_a_checkpoint_without_its_place_is_not_resumed(place, trained, tmp_path):
    content = torch.load(trained, weights_only=False)
    content['meta']['iter'] = place
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'x\.pth cannot be resumed: meta\.epoch and'):
        resumed_from(tmp_path / 'x.pth', tmp_path / 'run').train()


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (3, r"its entry 'resume' is of type int"),
        (
            dict(gradients={'linear.weight': torch.ones(5)}),
            r'is \(5,\), expected \(1, 3\)',
        ),
        (
            dict(gradients={'linear.bias': 1}),
            r'linear\.bias in it is 1, expected \(1,\)',
        ),
        (dict(gradients=[1]), r'its gradients are of type list'),
    ],
    ids=['number', 'shape', 'type', 'list'],
)
def test_an_entry_that_does_not_fit_is_named(entry, message, trained, tmp_path):
    content = torch.load(trained, weights_only=False)
    content['resume'] = entry
    torch.save(content, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=rf'x\.pth cannot be resumed: .*{message}'):
        resumed_from(tmp_path / 'x.pth', tmp_path / 'run').train()


def test_another_type_of_optimiser_is_not_resumed_with(trained, tmp_path):
    sgd = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    runner = resumed_from(trained, tmp_path, optim_wrapper=sgd)
    message = r'iter_8\.pth cannot be resumed with SGD: its optimizer has no .*momentum'
    with pytest.raises(ValueError, match=message):
        runner.train()


def test_a_training_that_is_over_says_so(trained, tmp_path):
    runner = toy(tmp_path, resume=True, length=4, load_from=str(trained))
    messages = Messages(runner)
    runner.train()
    assert f'nothing is left to train: {trained} is of iteration 8' in str(messages)
    assert 'ends after 4' in str(messages)
