import errno
import io
import logging
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from mmengine.hooks import EMAHook
from tiny_long_runs import At, differing
from toy_run import Messages, toy

from illama_seg.engine.long_runs import checkpoint as checkpoint_module
from illama_seg.engine.long_runs.newest import newest_checkpoint


def names(folder):
    return sorted(path.name for path in Path(folder).glob('*.pth*'))


def run(runner, *hooks):
    messages = Messages(runner)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return str(messages)


def fill_disk(folder, name):
    """What is written to the file meets a disk without space."""
    (folder / f'{name}.part').symlink_to('/dev/full')


# Whole or not there


def test_checkpoints_have_mmengines_names_and_leave_nothing_beside_them(tmp_path):
    run(toy(tmp_path, checkpoint=dict(max_keep_ckpts=2)))
    assert names(tmp_path) == ['iter_6.pth', 'iter_8.pth']
    pointer = tmp_path / 'last_checkpoint'
    assert Path(pointer.read_text()) == tmp_path / 'iter_8.pth'
    assert not list(tmp_path.glob('*.part'))


def test_an_older_checkpoint_is_removed_after_the_new_one_has_its_name(
    tmp_path, monkeypatch
):
    seen = []
    remove = checkpoint_module.SafeCheckpointHook._remove_checkpoint

    def look(hook, path):
        seen.append((Path(path).name, names(tmp_path)))
        assert newest_checkpoint(tmp_path).name == max(names(tmp_path))
        remove(hook, path)

    monkeypatch.setattr(
        checkpoint_module.SafeCheckpointHook, '_remove_checkpoint', look
    )
    run(toy(tmp_path, length=6, checkpoint=dict(max_keep_ckpts=1)))
    assert seen == [
        ('iter_2.pth', ['iter_2.pth', 'iter_4.pth']),
        ('iter_4.pth', ['iter_4.pth', 'iter_6.pth']),
    ]


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        done.append(('fsync', Path(os.readlink(f'/proc/self/fd/{handle}')).name))
        fsync(handle)

    def note_replace(source, target):
        done.append(('replace', Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', note_fsync)
    monkeypatch.setattr(os, 'replace', note_replace)
    run(toy(tmp_path, length=2))
    assert done == [
        ('fsync', 'iter_2.pth.part'),
        ('replace', 'iter_2.pth'),
        ('fsync', tmp_path.name),
        ('fsync', 'last_checkpoint.part'),
        ('replace', 'last_checkpoint'),
        ('fsync', tmp_path.name),
    ]


def test_the_best_checkpoint_takes_the_place_of_the_one_before(tmp_path):
    options = dict(checkpoint=dict(save_best='toy/top'), train_cfg=dict(val_interval=2))
    run(toy(tmp_path, scores=[1, 3, 2, 4], **options))
    best = [name for name in names(tmp_path) if 'best' in name]
    assert best == ['best_toy_top_iter_8.pth']
    state = torch.load(tmp_path / 'iter_8.pth', weights_only=False)
    infos = state['message_hub']['runtime_info']
    assert infos['best_score'] == 4 and infos['best_ckpt'].endswith(best[0])


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / 'iter_2.pth.part').write_bytes(b'half')
    run(toy(tmp_path, length=1))
    assert names(tmp_path) == ['iter_1.pth']


def test_checkpoints_wait_for_the_update(tmp_path):
    run(toy(tmp_path, length=12, accumulate=3, checkpoint=dict(interval=4)))
    assert names(tmp_path) == ['iter_12.pth', 'iter_6.pth', 'iter_9.pth']


# The newest is damaged


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('finished')
    run(toy(folder))
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_8.pth'))
    return tmp_path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_passed_over(copied, share):
    whole = (copied / 'iter_6.pth').read_bytes()
    (copied / 'iter_8.pth').write_bytes(whole[: int(share * len(whole))])
    assert newest_checkpoint(copied).name == 'iter_6.pth'


def test_a_flipped_bit_in_the_weights_is_found(copied):
    path = copied / 'iter_8.pth'
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if '/data/' in e.filename)
        place = entry.header_offset + 256
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert newest_checkpoint(copied).name == 'iter_6.pth'


def test_a_run_resumes_from_the_last_whole_checkpoint_and_says_so(
    finished, copied, caplog
):
    path = copied / 'iter_8.pth'
    path.write_bytes(path.read_bytes()[:1000])
    run(toy(copied, resume=True))
    log = next(copied.glob('*/*.log')).parent.parent
    text = ''.join(p.read_text() for p in log.glob('*/*.log'))
    assert re.search(r'damaged checkpoint .*iter_8.pth: 1,000 bytes, truncated', text)
    assert f'resuming from the newest undamaged one, {copied}/iter_6.pth' in text
    assert not differing(copied / 'iter_8.pth', finished / 'iter_8.pth')


@pytest.mark.parametrize('content', ['', '\0\0\0', '/moved/away/iter_6.pth', 'gone'])
def test_a_pointer_that_is_no_good_is_no_end(copied, content):
    (copied / 'last_checkpoint').write_text(content)
    expected = 'iter_6.pth' if '6' in content else 'iter_8.pth'
    assert newest_checkpoint(copied) == copied / expected


def test_nothing_but_damaged_checkpoints_is_an_error(copied):
    for path in copied.glob('*.pth'):
        path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'(?s)no checkpoint.*iter_8.*leave resume'):
        newest_checkpoint(copied)


def test_an_empty_folder_has_nothing_to_resume(tmp_path):
    assert newest_checkpoint(tmp_path) is None


def test_the_work_dirs_own_file_goes_before_the_one_that_the_pointer_names(copied):
    shutil.copytree(copied, copied / 'copy')
    assert newest_checkpoint(copied / 'copy') == copied / 'copy' / 'iter_8.pth'
    (copied / 'copy' / 'iter_8.pth').unlink()
    assert newest_checkpoint(copied / 'copy') == copied / 'iter_8.pth'


@pytest.mark.parametrize('pointer', ['', 'iter_9.pth'])
def test_folders_and_dangling_links_are_no_checkpoints(copied, pointer):
    (copied / 'last_checkpoint').write_text(pointer)
    (copied / 'iter_9.pth').mkdir()
    (copied / 'iter_10.pth').symlink_to(copied / 'gone')
    assert newest_checkpoint(copied) == copied / 'iter_8.pth'


# Files of other runs, and of other people

BEST = dict(checkpoint=dict(save_best='toy/top'), train_cfg=dict(val_interval=4))


@pytest.mark.parametrize('copy', [False, True])
def test_a_run_that_goes_on_in_another_folder_removes_nothing_in_the_first(
    tmp_path, copy
):
    first, second = tmp_path / 'first', tmp_path / 'second'
    run(toy(first, **BEST))
    before = names(first)
    assert 'best_toy_top_iter_8.pth' in before
    more = dict(load_from=str(first / 'iter_8.pth'))
    if copy:
        shutil.copytree(first, second)
        more = {}
    run(toy(second, resume=True, length=12, scores=[9], **BEST, **more))
    assert names(first) == before
    # Its own copy gave way to the better one.
    best = [name for name in names(second) if 'best' in name]
    assert best == ['best_toy_top_iter_12.pth']


def test_a_run_that_was_moved_replaces_its_best_and_its_oldest(tmp_path):
    options = dict(checkpoint=dict(save_best='toy/top', max_keep_ckpts=2))
    options['train_cfg'] = dict(val_interval=4)
    run(toy(tmp_path / 'a', **options))
    (tmp_path / 'a').rename(tmp_path / 'b')
    run(toy(tmp_path / 'b', resume=True, length=12, scores=[9], **options))
    assert names(tmp_path / 'b') == [
        'best_toy_top_iter_12.pth',
        'iter_10.pth',
        'iter_12.pth',
    ]


@pytest.mark.parametrize(
    ('key', 'kind', 'inside'),
    [
        ('best_ckpt', 'file', False),
        ('best_ckpt', 'file', True),
        ('interrupted_ckpt', 'folder', False),
        ('interrupted_ckpt', 'folder', True),
        ('interrupted_ckpt', 'link', False),
        ('keep_ckpt_ids', 'file', False),
        ('keep_ckpt_ids', 'folder', True),
    ],
)
def test_no_file_that_a_strangers_checkpoint_names_is_removed(
    finished, tmp_path, key, kind, inside
):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    # A name as a checkpoint's, elsewhere; or here, and of something else.
    victim = tmp_path / 'iter_3.pth'
    if inside:
        victim = work_dir / ('thesis.tex' if kind == 'file' else 'iter_3.pth')
    if kind == 'file':
        victim.write_text('precious')
    else:
        precious = victim if kind == 'folder' else tmp_path / 'precious'
        precious.mkdir()
        (precious / 'thesis.tex').write_text('precious')
        if kind == 'link':
            victim.symlink_to(precious)
    content = torch.load(finished / 'iter_8.pth', weights_only=False)
    named = ['../iter_3', 3, True] if key == 'keep_ckpt_ids' else str(victim)
    hub = content['message_hub']
    hub['runtime_info'][key], hub['resumed_keys'][key] = named, True
    path = (work_dir if inside else tmp_path) / 'iter_8.pth'
    torch.save(content, path)
    options = dict(checkpoint=dict(save_best='toy/top', max_keep_ckpts=1))
    options['train_cfg'] = dict(val_interval=4)
    more = dict(options, length=12, scores=[9], load_from=str(path))
    run(toy(work_dir, resume=True, **more))
    assert victim.exists()
    assert kind == 'file' or (victim / 'thesis.tex').read_text() == 'precious'
    assert {'best_toy_top_iter_12.pth', 'iter_12.pth'} <= set(names(work_dir))


def test_a_name_template_of_the_config_is_kept_to(tmp_path):
    checkpoint = dict(
        save_best='toy/top', max_keep_ckpts=1, filename_tmpl='weights {}.pth'
    )
    run(toy(tmp_path, checkpoint=checkpoint, train_cfg=dict(val_interval=4)))
    assert names(tmp_path) == ['best_toy_top_weights 8.pth', 'weights 8.pth']


# A full disk


def test_a_full_disk_keeps_the_previous_checkpoint_and_the_training_goes_on(tmp_path):
    full = At(4, lambda runner: fill_disk(tmp_path, 'iter_4.pth'))
    text = run(toy(tmp_path, checkpoint=dict(max_keep_ckpts=1)), full)
    assert re.search(
        rf'checkpoint iter_4.pth could not be written to {tmp_path}: No space left on '
        r'device; it needs more than [\d,]+ bytes, free: [\d,]+ bytes.*iter_2.pth.*'
        r'goes on',
        text,
    )
    assert names(tmp_path) == ['iter_8.pth']  # and nothing of the others


def test_a_checkpoint_that_failed_is_tried_again_before_the_next_is_due(tmp_path):
    full = At(20, lambda runner: fill_disk(tmp_path, 'iter_20.pth'))
    run(toy(tmp_path, length=25, checkpoint=dict(interval=20, save_last=False)), full)
    assert names(tmp_path) == ['iter_22.pth']


def test_a_training_whose_last_checkpoint_fails_ends_with_an_error(tmp_path):
    full = At(8, lambda runner: fill_disk(tmp_path, 'iter_8.pth'))
    runner = toy(tmp_path, checkpoint=dict(max_keep_ckpts=1))
    with pytest.raises(OSError, match=r'iter_8.pth could not be written.*the last one'):
        run(runner, full)
    assert names(tmp_path) == ['iter_6.pth']
    assert newest_checkpoint(tmp_path).name == 'iter_6.pth'


def test_a_best_checkpoint_that_fails_keeps_the_best_before(tmp_path):
    full = At(4, lambda runner: fill_disk(tmp_path, 'best_toy_top_iter_4.pth'))
    options = dict(checkpoint=dict(save_best='toy/top'), train_cfg=dict(val_interval=2))
    text = run(toy(tmp_path, length=5, **options), full)
    assert 'checkpoint best_toy_top_iter_4.pth could not be written' in text
    assert 'best_toy_top_iter_5.pth' in names(tmp_path)
    assert 'best_toy_top_iter_2.pth' not in names(tmp_path)


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_log_that_cannot_be_written_is_one_line_on_the_console(tmp_path, capsys):
    runner = toy(tmp_path, log_level='INFO')
    (handler,) = (
        h for h in runner.logger.handlers if isinstance(h, logging.FileHandler)
    )
    text = run(runner, At(3, lambda runner: handler.setStream(Full())))
    assert text.count('cannot be written') == 1
    assert re.search(r'\.log cannot be written: .*No space left', text)
    assert '--- Logging error ---' not in capsys.readouterr().err
    assert names(tmp_path)[-1] == 'iter_8.pth'


def test_a_small_file_system_that_fills_up_keeps_a_whole_checkpoint(tmp_path):
    command = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', tmp_path]
    if shutil.which('mount') is None or subprocess.run(command).returncode:
        pytest.skip('file systems cannot be mounted here')
    try:
        runner = toy(tmp_path / 'run', length=30, checkpoint=dict(interval=1))
        with pytest.raises(OSError, match='last one of the training'):
            run(runner)
        assert not list(tmp_path.rglob('*.part'))
        assert newest_checkpoint(tmp_path / 'run') is not None
    finally:
        subprocess.run(['umount', '-l', tmp_path], check=True)  # the log is open


# Spoiled weights


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    def spoil(runner):
        runner.model.linear.weight.data[0, 1] = torch.nan

    runner = toy(tmp_path)
    with pytest.raises(ValueError, match=r'linear.weight is not finite after .* 4'):
        run(runner, At(4, spoil, 'after_train_iter'))
    assert names(tmp_path) == ['iter_2.pth']
    assert newest_checkpoint(tmp_path).name == 'iter_2.pth'


def test_weights_that_are_not_finite_are_found_beside_their_averages(tmp_path):
    def spoil(runner):
        runner.model.linear.weight.data[0, 1] = torch.inf

    # After they were averaged, before they are saved.
    spoilt = At(4, spoil, 'after_train_iter', priority='LOW')
    runner = toy(tmp_path, custom_hooks=[dict(type='EMAHook', momentum=0.3)])
    with pytest.raises(ValueError, match=r'linear.weight is not finite after .* 4'):
        run(runner, spoilt)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    assert all(p.isfinite().all() for p in hook.ema_model.parameters())
    assert names(tmp_path) == ['iter_2.pth']


def test_a_best_score_of_another_metric_is_not_compared_with(tmp_path):
    options = dict(train_cfg=dict(val_interval=4))
    run(toy(tmp_path, scores=[50, 40], checkpoint=dict(save_best='toy/top'), **options))
    more = dict(options, length=12, scores=[3], resume=True)
    checkpoint = dict(save_best='toy/other', rule='greater')
    text = run(toy(tmp_path, checkpoint=checkpoint, **more))
    assert 'resumed with default_hooks.checkpoint.save_best=toy/other, was' in text
    best = [name for name in names(tmp_path) if 'best' in name]
    assert best == ['best_toy_other_iter_12.pth', 'best_toy_top_iter_4.pth']
