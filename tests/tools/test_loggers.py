"""TensorBoard and Weights & Biases as options of tools/train.py."""

import os
import sys

import pytest
from test_classification import train
from tiny_run import CONFIG, fails

from illama_seg.apis import add_tensorboard, add_wandb, load_config
from illama_seg.apis.runs import loggers


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith('WANDB_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('NETRC', str(tmp_path / 'netrc'))


@pytest.fixture
def installed(monkeypatch):
    """Whatever is asked for is installed."""
    monkeypatch.setattr(loggers, '_need', lambda package: None)


def wandb_options(work_dir='work_dirs/run'):
    cfg = load_config(CONFIG, work_dir=work_dir)
    add_wandb(cfg)
    return cfg.visualizer.vis_backends[-1].init_kwargs


@pytest.mark.parametrize('package', ['tensorboard', 'wandb'])
def test_a_missing_package_is_named_with_the_command(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    message = fails('train', CONFIG, f'--{package}', '--work-dir', tmp_path)
    expected = f'--{package}: not installed: pip install {package}'
    assert message == f'error: {expected}'


@pytest.mark.parametrize(
    ('backend', 'package'),
    [('TensorboardVisBackend', 'tensorboard'), ('WandbVisBackend', 'wandb')],
)
def test_a_missing_package_of_the_config_is_named(backend, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    cfg = load_config(CONFIG)
    loggers.check_loggers(cfg)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend'), dict(type=backend)]
    text = f'visualizer.vis_backends.1.type={backend} needs {package}, .*pip install'
    with pytest.raises(ValueError, match=text):
        loggers.check_loggers(cfg)


def test_both_stand_beside_the_log_that_there_is_once(installed):
    cfg = load_config(CONFIG)
    for add in (add_tensorboard, add_wandb) * 2:
        add(cfg)
    types = [backend.type for backend in cfg.visualizer.vis_backends]
    expected = ['LocalVisBackend', 'TensorboardVisBackend', 'ConfigWandbVisBackend']
    assert types == expected


def test_wandb_is_offline_by_default_and_named_after_the_work_dir(installed):
    expected = dict(project='illama_seg', name='run', mode='offline')
    assert wandb_options() == expected


@pytest.mark.parametrize('name', ['WANDB_MODE', 'WANDB_API_KEY'])
def test_wandb_is_left_its_mode_by_who_set_it_or_has_a_key(
    name, installed, monkeypatch
):
    monkeypatch.setenv(name, 'disabled')
    assert 'mode' not in wandb_options()


@pytest.mark.parametrize('host', ['api.wandb.ai', 'wandb.example.org'])
def test_wandb_is_left_its_mode_by_who_is_logged_in_at_its_server(
    host, installed, monkeypatch, tmp_path
):
    (tmp_path / 'netrc').write_text(f'machine {host}\n  login user\n  password key\n')
    assert ('mode' in wandb_options()) == (host != 'api.wandb.ai')
    monkeypatch.setenv('WANDB_BASE_URL', f'https://{host}')
    assert 'mode' not in wandb_options()


def test_wandb_is_left_the_names_that_the_environment_gives(installed, monkeypatch):
    monkeypatch.setenv('WANDB_PROJECT', 'mine')
    monkeypatch.setenv('WANDB_NAME', 'first')
    assert wandb_options() == dict(mode='offline')


def test_tensorboard_gets_losses_soft_mask_and_accuracy(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing import event_accumulator

    train(tmp_path, more=['--tensorboard'])
    (folder,) = tmp_path.glob('*/vis_data')
    accumulator = event_accumulator.EventAccumulator(str(folder))
    accumulator.Reload()
    rates = [event.value for event in accumulator.Scalars('soft_mask_rate')]
    assert len(rates) == 16 and rates[0] == 1 and rates[-1] == 0
    assert [event.step for event in accumulator.Scalars('loss')] == list(range(1, 17))
    assert len(accumulator.Scalars('accuracy/top1')) == 2


def test_wandb_offline_gets_losses_soft_mask_and_config_but_no_code(
    tmp_path, monkeypatch
):
    wandb = pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'unrelated.py').touch()
    try:
        train(tmp_path / 'work', more=['--wandb'])
    finally:
        wandb.teardown()  # the end of a program, which writes the file
    (folder,) = tmp_path.glob('work/*/vis_data/wandb/offline-run-*')
    (file,) = folder.glob('run-*.wandb')
    written = file.read_bytes()
    for name in (b'soft_mask_rate', b'loss', b'accuracy/top1', b'effective_batch'):
        assert name in written
    assert b'unrelated.py' not in written
