"""Advice of messages, followed to the letter: the run that failed then goes."""

import re
import shutil

import pytest
import torch
from tiny_classifier import CONFIG as DIGITS, OPTIONS as SMALL
from tiny_run import fails, run_tool
from tiny_squares import (
    begin,
    block_of,
    make_squares,
    train,
    unformatted,
    write_config,
)

from illama_seg.apis import parse_cfg_options
from illama_seg.engine.long_runs.accumulation import iterations_to_update
from illama_seg.errors import UserError

SHORT = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 9}
# Names of settings with a value, as they stand in a message.
SETTING = re.compile(
    r'(?<![\w.])[a-z_]+(?:\.\w+)*=(?:\([^)]*\)|[^\s,;:)(]*[^\s,;:.)(])'
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('advice')


@pytest.fixture(scope='module')
def squares(folder):
    """A config of the squares."""
    return write_config(folder / 'squares.py', make_squares(folder / 'data'))


@pytest.fixture(scope='module')
def trained(folder, squares):
    """A work dir of two iterations."""
    with unformatted():
        train(squares, folder / 'run', *_pairs(SHORT))
    return folder / 'run'


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / 'run')


def _pairs(options):
    return [f'{key}={value}' for key, value in options.items()]


def goes(config, work_dir, options=None, **flags):
    """Begin a training with dotted options."""
    options = {k.replace('.', '__'): v for k, v in (options or {}).items()}
    return begin(config, work_dir, **flags, **options)


def refused(config, work_dir, options=None, **flags):
    """The message of a training that does not begin."""
    with pytest.raises((UserError, ConnectionError)) as error:
        goes(config, work_dir, options, **flags)
    return str(error.value)


def advised(message, which=slice(None)):
    """Settings that a message advises, read as on a command line."""
    text = message[message.lower().rindex('set ') :]
    return parse_cfg_options(SETTING.findall(text)[which])


# Weights to start from


@pytest.fixture(scope='module')
def narrow(folder):
    """A file of another width."""
    torch.save({'cls_token': torch.ones(1, 1, 24)}, folder / 'narrow.pth')
    return str(folder / 'narrow.pth')


@pytest.mark.parametrize(
    'place', ['load_from', 'model.backbone.init_cfg', 'model.init_cfg']
)
@pytest.mark.parametrize('kind', ['narrow', 'strange', 'absent'])
def test_a_training_goes_without_the_file_that_was_refused(
    place, kind, squares, narrow, tmp_path
):
    file = narrow if kind == 'narrow' else str(tmp_path / f'{kind}.pth')
    if kind == 'strange':
        torch.save({'conv1.weight': torch.ones(1)}, file)
    config, options = squares, {}
    if place == 'model.init_cfg':
        config, options = DIGITS, dict(SMALL)
    pretrained = dict(type='Pretrained', checkpoint=file, _delete_=True)
    options[place] = file if place == 'load_from' else pretrained
    message = refused(config, tmp_path / 'run', options)
    assert file in message and advised(message) == {place: None}
    goes(config, tmp_path / 'run', options | advised(message))


def test_the_size_of_the_file_may_be_set(squares, trained, tmp_path):
    arch = dict(_delete_=True, embed_dims=24, num_layers=4, num_heads=3)
    options = {'model.backbone.arch': arch, 'load_from': str(trained / 'iter_2.pth')}
    options |= {'model.neck.embed_dim': 24, 'model.auxiliary_head.in_channels': 24}
    options['model.decode_head.in_channels'] = [24] * 4
    message = refused(squares, tmp_path, options)
    assert 'set model.backbone.arch, and the channels of neck and heads, to' in message
    goes(squares, tmp_path, dict(load_from=options['load_from']))


def test_a_grid_that_is_not_noted_may_be_set(squares, folder, tmp_path):
    config = write_config(tmp_path / 'wide.py', folder / 'data', crop=(64, 96))
    runner, _ = goes(config, tmp_path / 'a')
    state = dict(runner.model.backbone.state_dict())
    torch.save(state, tmp_path / 'wide.pth')
    options = dict(load_from=str(tmp_path / 'wide.pth'))
    message = refused(squares, tmp_path / 'b', options)
    assert 'set model.backbone.img_size to the size it was trained at' in message
    goes(squares, tmp_path / 'b', options | {'model.backbone.img_size': (64, 96)})


def test_another_feed_forward_may_be_set(squares, trained, tmp_path):
    options = {'model.backbone.ffn': 'mlp', 'load_from': str(trained / 'iter_2.pth')}
    message = refused(squares, tmp_path, options)
    assert "the model has ffn='mlp': set model.backbone.ffn=swiglu" in message
    goes(squares, tmp_path, options | {'model.backbone.ffn': 'swiglu'})


def test_a_checkpoint_is_tested_with_the_config_in_its_work_dir(
    trained, folder, tmp_path
):
    other = write_config(tmp_path / 'other.py', folder / 'data', crop=(32, 32))
    file = trained / 'iter_2.pth'
    message = fails('test', other, file, '--work-dir', tmp_path / 'a')
    assert 'mmengine keeps a copy of it in the work dir' in message
    run_tool('test', trained / 'squares.py', file, '--work-dir', tmp_path / 'b')


# Resuming


def starts_anew(message, config, work_dir, options=None):
    """Follow 'set load_from=FILE and leave resume out'."""
    settings = advised(message)
    assert list(settings) == ['load_from'] and 'and leave resume out' in message
    runner, log = goes(config, work_dir, (options or {}) | settings)
    assert runner.iter == 0 and f'{settings["load_from"]}: loaded ' in log


CANNOT = {
    'another model': {'model.decode_head.channels': 8},
    'another optimiser': {},
    'other groups': {'optim_wrapper.constructor': 'DefaultOptimWrapperConstructor'}
    | {'optim_wrapper.paramwise_cfg': None},
    'amsgrad': {'optim_wrapper.optimizer.amsgrad': True},
}


@pytest.mark.parametrize('kind', CANNOT)
def test_what_cannot_be_resumed_starts_anew_or_as_it_was_trained(
    kind, squares, run, tmp_path
):
    options = CANNOT[kind]
    if kind == 'another optimiser':
        sgd = dict(type='SGD', lr=0.1, weight_decay=0.01, _delete_=True)
        options = {'optim_wrapper.optimizer': sgd}
    message = refused(squares, run, options, resume=True)
    assert 'iter_2.pth cannot be resumed' in message
    starts_anew(message, squares, tmp_path / 'anew', options)
    if kind == 'amsgrad':  # advised too
        options = {'optim_wrapper.optimizer.amsgrad': False}
        assert 'Set optim_wrapper.optimizer.amsgrad=False' in message
    else:  # as it was trained
        options = {}
    runner, _ = goes(squares, run, options, resume=True)
    assert runner.iter == 2


def test_weights_alone_start_a_training(squares, trained, tmp_path):
    state = torch.load(trained / 'iter_2.pth', weights_only=True)['state_dict']
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    options = dict(load_from=str(tmp_path / 'weights.pth'))
    message = refused(squares, tmp_path / 'run', options, resume=True)
    starts_anew(message, squares, tmp_path / 'run')


@pytest.mark.parametrize('way', ['remove', 'leave out'])
def test_damaged_checkpoints_are_removed_or_resume_is_left_out(way, squares, run):
    (run / 'iter_2.pth').write_bytes(b'x')
    message = refused(squares, run, resume=True)
    assert f'Remove them and {run / "last_checkpoint"}, or leave resume out' in message
    if way == 'remove':
        (run / 'iter_2.pth').unlink()
        (run / 'last_checkpoint').unlink()
    runner, _ = goes(squares, run, resume=way == 'remove')
    assert runner.iter == 0


@pytest.mark.parametrize('amp', [False, True])
def test_a_training_that_diverged_is_resumed_with_what_the_message_advises(
    amp, squares, run, monkeypatch
):
    monkeypatch.setenv('ILLAMA_SEG_PRECISION', 'bfloat16')
    flags = ['--resume', '--amp'] if amp else ['--resume']
    far = ['optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_iters=6']
    far += ['param_scheduler.1.end=6', 'default_hooks.checkpoint.interval=9']
    far += ['default_hooks.checkpoint.save_last=False', 'train_cfg.val_interval=9']
    with unformatted():
        message = fails(
            'train', squares, '--work-dir', run, *flags, '--cfg-options', *far
        )
    assert 'resume from the last checkpoint (resume=True) with a lower' in message
    advice = message.rpartition(' with ')[2]
    lower = {'optim_wrapper.optimizer.lr': 1e-5, 'param_scheduler.1.end': 6}
    runner, _ = goes(squares, run, lower, resume=True, amp=amp)
    groups = runner.optim_wrapper.optimizer.param_groups
    assert runner.iter == 2 and {g['initial_lr'] for g in groups} == {1e-5}
    settings = parse_cfg_options(SETTING.findall(advice))
    assert ('optim_wrapper.dtype' in settings) == amp
    for key, value in settings.items():
        runner, log = goes(squares, run, {key: value}, resume=True, amp=amp)
        assert runner.iter == 2
    assert (
        runner.optim_wrapper.clip_grad_kwargs
        or block_of(log)['precision'][:7] == 'float32'
    )


# Schedule and batch


def test_a_schedule_of_another_length_is_set_as_the_warning_says(squares, run, capsys):
    goes(squares, run, {'train_cfg.max_iters': 8}, resume=True)
    log = capsys.readouterr().out  # there is no log file yet
    warning = log[log.index('but the learning rate is scheduled') :].partition('\n')[0]
    settings = advised(warning.replace('To fit it, ', ''), slice(1))
    assert settings == {'param_scheduler.1.end': 8}
    runner, log = goes(squares, run, {'train_cfg.max_iters': 8} | settings, resume=True)
    assert 'but the learning rate is scheduled' not in capsys.readouterr().out
    assert 'resumed with param_scheduler.1.end=8, was 4' in log
    found = {group['lr'] for group in runner.optim_wrapper.optimizer.param_groups}
    assert found == {6e-5}  # the warmup's end; at the old end it would soon be 0


def test_a_schedule_that_ends_before_it_begins_is_set(squares, tmp_path):
    message = refused(squares, tmp_path, {'param_scheduler.1.end': 1})
    assert 'set param_scheduler.1.begin and .end' in message
    goes(squares, tmp_path, {'param_scheduler.1.begin': 0, 'param_scheduler.1.end': 1})


@pytest.mark.parametrize(
    ('way', 'options'),
    [
        ('lower its cutoff in custom_hooks', {'custom_hooks.0.cutoff': 4}),
        ('train longer', {'train_cfg.max_iters': 9}),
    ],
)
def test_a_soft_mask_that_is_too_long_is_shortened(way, options, squares, tmp_path):
    hook = dict(type='SoftMaskHook', mode='linear', cutoff=9, by_epoch=False)
    config = tmp_path / 'soft.py'
    config.write_text(f'{squares.read_text()}\ncustom_hooks = [{hook}]\n')
    assert way in refused(config, tmp_path)
    goes(config, tmp_path, options)


def test_an_effective_batch_is_set_as_the_message_says(tmp_path):
    options = SMALL | {'train_dataloader.batch_size': 48}
    message = refused(DIGITS, tmp_path, options)
    assert 'set another train_dataloader.batch_size, which divides it' in message
    goes(DIGITS, tmp_path, options | {'train_dataloader.batch_size': 32})
    with pytest.raises(UserError) as error:
        iterations_to_update(64, processes=3, images=4)
    settings = advised(str(error.value))
    assert settings == {'effective_batch': 60, 'auto_scale_lr.enable': True}
    assert iterations_to_update(60, processes=3, images=4) == 5
    # With one process, what follows the batch.
    goes(DIGITS, tmp_path, SMALL | {'train_dataloader.batch_size': 4} | settings)


def test_the_rate_of_another_batch_is_set_as_the_block_says(squares, tmp_path):
    options = {'auto_scale_lr.base_batch_size': 16}
    _, log = goes(squares, tmp_path / 'a', options)
    ways = parse_cfg_options(SETTING.findall(log[log.index('set auto_scale_lr') :])[:2])
    assert list(ways) == ['auto_scale_lr.enable', 'optim_wrapper.optimizer.lr']
    for key, value in ways.items():
        _, log = goes(squares, tmp_path / key, options | {key: value})
        assert "7.5e-06, by linear scaling of the recipe's 6e-05 for 16" in log


def test_a_rate_that_is_to_be_scaled_needs_the_batch_that_it_is_for(squares, tmp_path):
    flags = ['--work-dir', tmp_path, '--auto-scale-lr']
    message = fails('train', squares, *flags)
    assert 'set auto_scale_lr.base_batch_size' in message
    options = [*_pairs(SHORT), 'auto_scale_lr.base_batch_size=16']
    with unformatted():
        run_tool('train', squares, *flags, '--cfg-options', *options)


def test_a_single_image_gets_a_second(squares, tmp_path):
    message = refused(squares, tmp_path, {'train_dataloader.batch_size': 1})
    assert advised(message) == {'train_dataloader.batch_size': 2}
    goes(squares, tmp_path, advised(message))


def test_variables_of_a_config_are_set_where_they_go(squares, tmp_path):
    message = refused(squares, tmp_path, {'max_iters': 3})
    assert 'set train_cfg.max_iters (and the ends in param_scheduler)' in message
    goes(squares, tmp_path, {'train_cfg.max_iters': 3, 'param_scheduler.1.end': 3})


def test_layer_decay_without_layers_is_taken_out(squares, tmp_path):
    options = {'optim_wrapper.constructor': 'LayerDecayConstructor'}
    message = refused(squares, tmp_path, options)
    rate = 'optim_wrapper.paramwise_cfg.layer_decay_rate'
    assert f'{rate}=None: expected a number in (0, 1]; 1 decays nothing' in message
    goes(squares, tmp_path, options | {rate: 1})


def test_another_runner_is_one_of_the_two(squares, tmp_path):
    message = refused(squares, tmp_path, dict(runner_type='FlexibleRunner'))
    for name in ('Runner', 'ShardedRunner'):
        assert f"'{name}'" in message
        goes(squares, tmp_path, dict(runner_type=name))


# Classification

DIGIT_DATA = {
    'train_dataloader.batch_size': 5,
    'effective_batch': 5,
    'model.data_preprocessor.mixup': 0.8,
}


def test_a_batch_that_cannot_be_mixed_in_pairs_is_made_even(tmp_path):
    config = ['--work-dir', tmp_path, '--cfg-options']
    options = SMALL | DIGIT_DATA | {'train_dataloader.dataset.indices': 5}
    options |= {'train_cfg.max_epochs': 1, 'param_scheduler.0.warmup': 0}
    options |= {'custom_hooks.0.cutoff': 1, 'val_dataloader.dataset.indices': 9}
    message = fails('train', DIGITS, *config, *_pairs(options))
    assert 'set an even train_dataloader.batch_size' in message
    options |= {'train_dataloader.batch_size': 4, 'effective_batch': 4}
    options |= advised(message)
    assert options['train_dataloader.drop_last'] is True
    run_tool('train', DIGITS, *config, *_pairs(options))


@pytest.mark.parametrize(
    'options',
    [
        {'model.head.num_classes': 7},
        {'val_evaluator.topk': (1, 11)},
        {'model.backbone.out_type': 'featmap'},
    ],
)
def test_a_classification_is_set_right(options, tmp_path):
    message = refused(DIGITS, tmp_path, SMALL | options)
    if 'model.backbone.out_type' in options:
        settings = {'model.backbone.out_type': 'cls_token'}
        assert "expected the class token, 'cls_token'" in message
    else:
        settings = advised(message)
    assert settings.keys() == options.keys()
    goes(DIGITS, tmp_path, SMALL | options | settings)


def test_a_warmup_fits_into_the_training(tmp_path):
    options = SMALL | {'train_cfg.max_epochs': 2, 'custom_hooks.0.cutoff': 1}
    message = refused(DIGITS, tmp_path, options | {'param_scheduler.0.warmup': 3})
    assert 'expected 0 or more, and less than the training' in message
    goes(DIGITS, tmp_path, options | {'param_scheduler.0.warmup': 1})
