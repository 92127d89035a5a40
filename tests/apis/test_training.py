import re
from unittest import mock

import pytest
from mmengine.dist import get_dist_info
from mmengine.runner import Runner
from tiny_run import CONFIG, data_options, make_ade20k

from illama_seg.apis import build_tester, build_trainer, checks, load_config
from illama_seg.apis.training import _set_amp


@pytest.fixture
def cfg(tmp_path):
    """The real config over data that is there, without the released weights."""
    root = make_ade20k(tmp_path / 'ade20k')
    options = dict(option.split('=') for option in data_options(root))
    options['model.backbone.init_cfg'] = None
    return load_config(CONFIG, options, tmp_path / 'work')


@pytest.fixture
def built(monkeypatch):
    """The configs a runner was built of; none is built."""
    configs = []

    def from_cfg(cfg):
        configs.append(cfg)
        return mock.MagicMock(_resume=False)

    monkeypatch.setattr(Runner, 'from_cfg', from_cfg)
    return configs


def test_a_missing_config_is_named_with_those_beside_it():
    with pytest.raises(FileNotFoundError, match=r'no config .*nowhere\.py') as error:
        load_config(CONFIG.with_name('nowhere.py'))
    assert CONFIG.name in str(error.value)


def test_a_config_is_also_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (CONFIG.stem, CONFIG.name, f'configs/{CONFIG.name}'):
        cfg = load_config(name)
        assert cfg.filename == str(CONFIG)
        assert cfg.work_dir == f'work_dirs/{CONFIG.stem}'


def test_a_file_that_is_there_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / CONFIG.name).write_text('a = 1')
    assert load_config(CONFIG.name).a == 1
    with pytest.raises(FileNotFoundError, match=f'nearest .*{CONFIG.stem}'):
        load_config(f'elsewhere/{CONFIG.name}')


@pytest.mark.parametrize('text', ['model = dict(', "_base_ = 'nowhere.py'", 'a = b.c'])
def test_a_config_that_cannot_be_read_is_named(text, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'broken\.py'):
        load_config(path)


@pytest.mark.parametrize(
    'option', [{'param_scheduler.9.end': 3}, {'model.backbone.arch.embed_dims': 3}]
)
def test_an_override_that_does_not_fit_is_shown(option):
    with pytest.raises(ValueError, match='cfg_options=') as error:
        load_config(CONFIG, option)
    assert next(iter(option)) in str(error.value)


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ('train_dataloder.batch_size', "'train_dataloder': no such.* train_dataloader"),
        ('train_pipeline.0.x', 'no effect .*set train_dataloader.dataset.pipeline'),
        ('optimizer.lr', 'no effect by itself: set optim_wrapper.optimizer$'),
        ('num_classes', 'set .*model.decode_head.num_classes, model.auxiliary_head.nu'),
    ],
)
def test_an_override_without_effect_names_the_setting_that_is_meant(option, text):
    with pytest.raises(ValueError, match=text):
        load_config(CONFIG, {option: 2})


def test_settings_that_hooks_may_read_can_be_overridden():
    options = dict(effective_batch=32, of_my_hook=1, find_unused_parameters=True)
    assert options.items() <= dict(load_config(CONFIG, options)).items()


def test_the_work_dir_is_named_after_the_config_unless_given(tmp_path):
    assert load_config(CONFIG).work_dir == f'work_dirs/{CONFIG.stem}'
    assert load_config(CONFIG, work_dir=tmp_path).work_dir == str(tmp_path)
    assert load_config(CONFIG, {'work_dir': 'there'}).work_dir == 'there'


def test_missing_data_stops_the_run_before_anything_is_built(cfg, built, tmp_path):
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r'nowhere/images/validation'):
        build_trainer(cfg)
    assert not built


def test_a_missing_checkpoint_stops_the_run_before_anything_is_built(cfg, built):
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth'):
        build_trainer(cfg)
    with pytest.raises(FileNotFoundError, match=r'other\.pth'):
        build_tester(cfg, 'other.pth')
    assert not built


@pytest.mark.parametrize('below', ['', 'deeper'])
def test_a_work_dir_that_cannot_be_written_is_named(below, cfg, built, tmp_path):
    (tmp_path / 'file').touch()
    cfg.work_dir = str(tmp_path / 'file' / below)
    with pytest.raises(ValueError, match=r'work_dir=.*file.*: cannot be written'):
        build_trainer(cfg)
    assert not built


def test_a_good_run_is_handed_to_the_runner(cfg, built):
    build_trainer(cfg, resume=True)
    assert built == [cfg] and cfg.resume


def test_amp_leaves_the_precision_to_the_measurement(cfg):
    _set_amp(cfg)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.optim_wrapper.get('dtype', 'auto') == 'auto'


def test_a_schedule_that_ends_before_it_begins_stops_the_run(cfg, built):
    cfg.param_scheduler[1].end = 1000
    with pytest.raises(ValueError, match=r'param_scheduler\.1 ends at iteration 1000'):
        build_trainer(cfg)
    assert not built


@pytest.fixture
def logged(monkeypatch):
    messages = []
    monkeypatch.setattr(checks, 'print_log', lambda text, **_: messages.append(text))
    return messages


def test_a_schedule_of_another_length_than_the_run_is_warned_of(cfg, logged):
    checks.check_schedule(cfg)
    assert not logged
    cfg.train_cfg.max_iters = 9000
    checks.check_schedule(cfg)
    assert 'max_iters=9000' in logged[0]
    assert 'param_scheduler.1.end=9000' in logged[0]
    del cfg.param_scheduler[1].end  # it is then the training's, whatever the warmup's
    checks.check_schedule(cfg)
    assert len(logged) == 1


@pytest.mark.parametrize(
    ('step', 'text'),
    [
        (dict(type='CosineAnnealingLR', T_max=4), 'T_max=4, but it acts for 8 iter'),
        (
            dict(type='CosineAnnealingLR', T_max=4),
            r'rises again after it: set .*T_max=8',
        ),
        (dict(type='CosineAnnealingLR', T_max=80), 'does not reach its end'),
        (dict(type='MultiStepLR', milestones=[4, 60]), '60 is never reached'),
        (dict(type='CosineAnnealingLR', T_max=6, begin=2), ''),
        (dict(type='CosineAnnealingLR', T_max=8, end=8), ''),
        (dict(type='MultiStepLR', milestones=[4, 7]), ''),
    ],
)
def test_a_schedule_that_turns_elsewhere_than_the_training_is_warned_of(
    cfg, logged, step, text
):
    cfg.train_cfg.max_iters = 8
    cfg.param_scheduler = [dict(step, by_epoch=False)]
    checks.check_schedule(cfg)
    assert bool(logged) == bool(text)
    assert not text or re.search(text, logged[0])


def test_tta_needs_a_pipeline_in_the_config(run):
    cfg = load_config(run.config, work_dir=run.work_dir / 'no_tta')
    cfg.pop('tta_pipeline')
    with pytest.raises(ValueError, match='no tta_pipeline'):
        build_tester(cfg, run.checkpoint, tta=True)


def test_no_distributed_job_is_started_by_default(cfg):
    assert cfg.launcher == 'none' and get_dist_info() == (0, 1)
