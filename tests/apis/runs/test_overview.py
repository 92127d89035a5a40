import re
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from tiny_run import CONFIG, ROOT, run_tool, start_fresh, tiny_options
from torch import nn

from illama_seg.apis import load_config
from illama_seg.apis.runs import overview
from illama_seg.apis.runs.batches import fitting_rate
from illama_seg.apis.runs.overview import OverviewHook, describe_run
from illama_seg.backbones import ILLaMA
from illama_seg.checkpoints import LoadReport
from illama_seg.engine import AutocastOptimWrapper
from illama_seg.layers import attention_dispatch
from illama_seg.machine import choices, precision
from illama_seg.machine.threads import describe_wait_policy

LR = 6e-5
ARCH = dict(embed_dims=8, num_layers=1, num_heads=2)


def fake_runner(
    images=2,
    world_size=1,
    counts=1,
    recipe=16,
    enabled=False,
    model=None,
    lr=LR,
    **more,
):
    """What describe_run reads of a runner, at the first of 300 iterations."""
    model = model or ILLaMA(arch=ARCH, out_indices=(0,), img_size=32)
    ratio = images * world_size * counts / recipe if recipe and enabled else 1
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * ratio)
    wrapper = more.pop('wrapper', OptimWrapper)(optimizer, accumulative_counts=counts)
    cfg = Config(
        dict(
            optim_wrapper=dict(optimizer=dict(lr=lr)),
            auto_scale_lr=recipe
            and dict(enable=enabled, base_batch_size=recipe, base_lr=LR),
        )
    )
    dataset = mock.MagicMock(metainfo=dict(classes=('a', 'b')))
    dataset.__len__.return_value = 1200
    dataset.data_prefix = dict(img_path='images/train')
    runner = SimpleNamespace(
        cfg=cfg,
        model=model,
        work_dir='work',
        iter=0,
        max_iters=300,
        world_size=world_size,
        train_dataloader=SimpleNamespace(batch_size=images, dataset=dataset),
        val_loop=None,
        hooks=[],
        optim_wrapper=wrapper,
        param_schedulers=None,
        _resume=False,
        _load_from=None,
        _has_loaded=False,
    )
    vars(runner).update(more)
    return runner


def rows(runner):
    lines = describe_run(runner).splitlines()
    assert lines[0] == lines[-1] and set(lines[0]) == {'-'}
    return dict(re.split(r' {2,}', line, maxsplit=1) for line in lines[1:-1])


@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.sampled_from([8, 16])
)
def test_batch_is_all_processes_times_images_times_accumulation(
    images, world_size, counts, recipe
):
    found = rows(fake_runner(images, world_size, counts, recipe))
    total = images * world_size * counts
    assert f'= {total}, ' in found['batch']
    assert ('NOT the recipe' in found['batch']) == (total != recipe)
    fits = f'for {recipe} gives {LR * total / recipe:.4g}: set auto_scale_lr'
    assert (fits in found['learning rate']) == (total != recipe)


@pytest.mark.parametrize('given', [dict(enabled=True), dict(lr=LR / 4)])
def test_a_scaled_learning_rate_is_told_from_one_that_is_not(given):
    found = rows(fake_runner(images=4, **given))
    expected = f"{LR / 4:.4g}, by linear scaling of the recipe's 6e-05 for 16"
    assert found['learning rate'] == expected


def test_without_a_recipe_nothing_is_compared():
    found = rows(fake_runner(recipe=None))
    assert 'recipe' not in found['batch'] and found['learning rate'] == '6e-05'


def test_data_is_shown_with_its_size_classes_and_folder():
    found = rows(fake_runner())
    assert found['train data'] == '1,200 images, 2 classes: images/train'
    assert 'val data' not in found


@pytest.mark.parametrize(
    ('wrapper', 'precision'),
    [
        (OptimWrapper, 'float32; AutocastOptimWrapper'),
        (partial(AutocastOptimWrapper, dtype='bfloat16'), 'bfloat16, as set'),
    ],
)
def test_precision_and_attention_are_shown_with_their_reasons(wrapper, precision):
    found = rows(fake_runner(wrapper=wrapper))
    assert found['precision'].startswith(precision)
    assert found['attention'] == "soft mask by 'blocked', fixed, 5 tokens"
    expected = None if 'bfloat16' in precision else 'by product, fixed'
    assert found.get('linear layers') == expected


@pytest.mark.parametrize(
    ('seconds', 'name'),
    [({'float32': 2.0, 'bfloat16': 1.0}, 'bfloat16'), ({'float32': 1.0}, 'float32')],
)
def test_a_measured_precision_decides_what_the_attention_is_timed_in(
    monkeypatch, tmp_path, seconds, name
):
    monkeypatch.setattr(precision, 'measure_precisions', lambda device: seconds)
    monkeypatch.setenv('ILLAMA_SEG_ATTENTION', 'auto')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cases = []

    def times(names, case):
        cases.append(case)
        return dict(blocked=2.0, flash=1.0, reference=3.0)

    monkeypatch.setattr(attention_dispatch, '_times', times)
    choices.forget()
    found = rows(fake_runner(wrapper=AutocastOptimWrapper, images=3))
    choices.forget()
    assert found['precision'].startswith(f'{name}: ')
    assert cases == [('cpu', getattr(torch, name), 4, 4, 8, True)]  # 5 tokens, 6 heads
    assert "soft mask by 'flash', measured" in found['attention']
    assert 'blocked 2e+03 ms' in found['attention']


def test_devices_name_the_processors_capability_and_how_threads_wait():
    found = rows(fake_runner())
    if not torch.cuda.is_available():
        assert torch.backends.cpu.get_cpu_capability() in found['devices']
        assert describe_wait_policy() in found['devices']


def test_attention_is_shown_at_the_size_of_the_training_crops():
    model = nn.Module()
    model.backbone = ILLaMA(arch=ARCH, out_indices=(0,), img_size=32)
    model.data_preprocessor = SimpleNamespace(size=(40, 64))
    assert rows(fake_runner(model=model))['attention'].endswith(', 13 tokens')


@pytest.mark.parametrize('mask', ['strict', 'bidirectional'])
def test_another_mask_is_named(mask):
    model = ILLaMA(arch=ARCH, out_indices=(0,), img_size=32, attn_mask=mask)
    assert rows(fake_runner(model=model))['attention'].startswith(f'{mask}, scaled_dot')


def test_pretrained_keys_are_counted_once_loaded(golden_checkpoint):
    arch = dict(embed_dims=192, num_layers=2, num_heads=3)
    init = dict(type='Pretrained', checkpoint=str(golden_checkpoint))
    state = torch.load(golden_checkpoint, weights_only=False)['model']
    arch['embed_dims'] = state['cls_token'].shape[-1]
    patch = state['patch_embed.proj.weight'].shape[-1]
    model = ILLaMA(
        arch=arch, out_indices=(1,), init_cfg=init, img_size=9 * patch, patch_size=patch
    )
    assert rows(fake_runner(model=model))['weights'] == 'from scratch'
    model.init_weights()
    total = len(model.state_dict())
    assert rows(fake_runner(model=model))['weights'] == (
        f'{golden_checkpoint}: loaded {total} of {total} backbone keys, '
        '1 resized (pos_embed), 0 missing'
    )


def test_a_classifiers_pretrained_backbone_is_reported(tmp_path):
    options = {
        'model.backbone.arch': ARCH | dict(num_layers=4),
        'model.head.in_channels': 8,
    }
    cfg = load_config(ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py', options)
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'a.pth')
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    found = rows(fake_runner(model=model))
    total = len(model.backbone.state_dict())
    assert f'a.pth: loaded {total} of {total} backbone keys' in found['weights']
    assert found['attention'].endswith(', 17 tokens')


def test_an_empty_work_dir_has_nothing_to_resume(tmp_path):
    found = rows(fake_runner(_resume=True, work_dir=str(tmp_path)))
    assert found['weights'] == f'nothing to resume in {tmp_path}; from scratch'


def test_a_checkpoint_to_start_from_is_named_with_what_was_loaded():
    model = ILLaMA(arch=ARCH, out_indices=(0,), img_size=32)
    runner = fake_runner(model=model, _load_from='a.pth')
    assert rows(runner)['weights'] == 'from a.pth'  # without InitialWeightsHook
    model.load_report = LoadReport('a.pth', 'model', matched=['a', 'b'], missing=['c'])
    assert rows(runner)['weights'] == (
        'a.pth: loaded 2 of 3 model keys, 0 resized, 1 missing (c)'
    )


@pytest.mark.parametrize(
    ('world_size', 'found', 'text'),
    [
        (1, 1, '1 x Card, 79 GiB'),
        (1, 8, '1 x Card, 79 GiB; 7 more are idle'),
        (8, 8, '8 x Card, 79 GiB'),
    ],
)
def test_gpus_are_named_and_idle_ones_pointed_out(world_size, found, text, monkeypatch):
    cuda = mock.MagicMock(wraps=torch.cuda)
    cuda.is_available = lambda: True
    cuda.current_device = lambda: 0
    cuda.device_count = lambda: found
    card = SimpleNamespace(name='Card', total_memory=79 * 2**30)
    cuda.get_device_properties = lambda _: card
    monkeypatch.setattr(overview.torch, 'cuda', cuda)
    shown = rows(fake_runner(world_size=world_size))
    assert shown['devices'] == text and f'{world_size} GPU x' in shown['batch']


def test_only_the_main_process_logs(monkeypatch):
    runner = fake_runner(logger=mock.MagicMock())
    for main in (True, False):
        monkeypatch.setattr(
            'illama_seg.apis.runs.overview.is_main_process', lambda main=main: main
        )
        OverviewHook().before_train(runner)
    assert runner.logger.info.call_count == 1


def test_doubts_follow_the_block():
    runner = fake_runner(logger=mock.MagicMock())
    runner.cfg.train_cfg = dict(type='IterBasedTrainLoop')
    OverviewHook().before_train(runner)
    (call,) = runner.logger.warning.call_args_list
    assert 'set default_hooks.logger.log_metric_by_epoch=False' in call.args[0]


# With mmengine's own runner


@pytest.fixture
def tiny(run, tmp_path):
    """A config that trains a tiny model for one iteration, resuming the fixture's."""

    def make(*options):
        start_fresh()
        pairs = [*tiny_options(run.data, 3), 'train_cfg.val_interval=9', *options]
        config = ['--work-dir', tmp_path, '--cfg-options', *pairs]
        return CONFIG, config

    return make


def log_of(work_dir):
    (path,) = work_dir.glob('*/*.log')
    return path.read_text()


def test_the_block_stands_last_before_the_first_iteration(run):
    lines = run.log.splitlines()
    (start,) = (n for n, line in enumerate(lines) if line.startswith('train data'))
    (first,) = (n for n, line in enumerate(lines) if 'Iter(train) [1/2]' in line)
    end = lines.index('-' * 72, start)
    assert lines[start - 1] == lines[end] and end < first < end + 4
    assert 'NOT the recipe' in '\n'.join(lines[start:end])


def test_the_block_says_what_was_rehearsed(run):
    line = r'^rehearsal {6}one step of 2 images and 2 images validated, [\d.]+ s$'
    assert len(re.findall(line, run.log, re.MULTILINE)) == 1


def test_a_complete_run_that_is_resumed_says_that_nothing_is_left(run, tmp_path, tiny):
    (tmp_path / 'last_checkpoint').write_text(str(run.checkpoint))
    config, arguments = tiny('train_cfg.max_iters=2', 'param_scheduler.1.end=2')
    run_tool('train', config, '--resume', *arguments)
    text = 'this training is complete, iteration 2 of train_cfg.max_iters=2: nothing is'
    assert text in log_of(tmp_path)
    assert text not in run.log


def test_accumulation_says_how_many_updates_there_are(tiny, tmp_path):
    config, arguments = tiny('optim_wrapper.accumulative_counts=2')
    run_tool('train', config, *arguments)
    assert '2 accumulated = 4 (3 iterations are 2 updates)' in log_of(tmp_path)


def test_a_file_behind_resume_is_refused_with_the_way(run, tiny, capsys):
    config, _ = tiny()
    with pytest.raises(SystemExit):
        run_tool('train', config, '--resume', run.checkpoint)
    assert 'write --resume --cfg-options load_from=FILE' in capsys.readouterr().err


def test_a_file_behind_load_from_is_resumed(run, tiny, tmp_path):
    config, arguments = tiny(f'load_from={run.checkpoint}')
    run_tool('train', config, '--resume', *arguments)
    assert f'resumed from {run.checkpoint}, at iteration 2\n' in log_of(tmp_path)


def test_a_resumed_run_says_from_where(run, tmp_path, tiny):
    (tmp_path / 'last_checkpoint').write_text(str(run.checkpoint))
    config, arguments = tiny()
    run_tool('train', config, '--resume', *arguments)
    log = log_of(tmp_path)
    assert f'weights        resumed from {run.checkpoint}, at iteration 2\n' in log
    assert 'learning rate  6e-05, as resumed' in log


def test_auto_scale_lr_counts_accumulated_images(run, tmp_path, tiny):
    config, arguments = tiny('optim_wrapper.accumulative_counts=2')
    run_tool('train', config, '--auto-scale-lr', *arguments)
    text = "learning rate  1.5e-05, by linear scaling of the recipe's 6e-05 for 16"
    assert text in log_of(tmp_path)
    state = torch.load(tmp_path / 'iter_2.pth', weights_only=False)
    groups = state['optimizer']['param_groups']
    assert {group['initial_lr'] for group in groups} == {1.5e-5}


def test_auto_scale_lr_needs_a_batch_to_scale_from(run, tmp_path, tiny):
    config, arguments = tiny('auto_scale_lr=None')
    with pytest.raises(SystemExit, match=r'auto_scale_lr\.base_batch_size'):
        run_tool('train', config, '--auto-scale-lr', *arguments)


def test_a_batch_that_an_override_names_is_that_of_the_files_rate(tmp_path):
    options = {'auto_scale_lr.base_batch_size': 8}
    config = ROOT / 'configs' / 'upernet_illama_demo.py'
    rate = load_config(config).optim_wrapper.optimizer.lr
    assert fitting_rate(load_config(config, options, tmp_path), 4) == rate / 2


def test_a_classification_recipes_batch_is_that_of_its_file(tmp_path):
    config = ROOT / 'configs' / 'pretrain' / 'illama_micro_digits.py'
    options = {'effective_batch': 32, 'optim_wrapper.optimizer.lr': 5.0}
    cfg = load_config(config, options, tmp_path)
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=64, base_lr=2e-3)


def test_a_resumed_rate_is_what_the_schedule_goes_on_from(tmp_path, monkeypatch):
    """WarmupCosineLR takes the config's, mmengine's schedules the checkpoint's."""
    runner = fake_runner(_resume=True, _has_loaded=True, work_dir=str(tmp_path))
    for group in runner.optim_wrapper.optimizer.param_groups:
        group['initial_lr'] = 9.0
    assert rows(runner)['learning rate'] == '9, as resumed'
    schedule = SimpleNamespace(param_name='lr', base_values=[2.0, 7.0])
    runner.param_schedulers = [schedule]
    assert rows(runner)['learning rate'] == '2, as resumed'
