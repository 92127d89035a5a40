"""What an installation holds: sdist, wheel and editable."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'illama_seg'
SOURCES = (
    'illama_seg',
    'configs',
    'tools',
    'model-index.yml',
    'setup.py',
    'pyproject.toml',
    'requirements.txt',
    'README.md',
    'LICENSE',
)

pytest.importorskip('setuptools', '77')


def python(*arguments, cwd, path=''):
    """A process that knows the package from ``path`` only."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | dict(PYTHONPATH=str(path)),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp('checkout')
    ignore = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope='module')
def installed(checkout, tmp_path_factory):
    """A wheel, built from the sdist of a checkout and unpacked."""
    base = tmp_path_factory.mktemp('installed')
    build = 'from setuptools import build_meta; build_meta.build_sdist({!r})'
    python('-c', build.format(str(base)), cwd=checkout)
    (sdist,) = base.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        assert not [name for name in archive.getnames() if '__pycache__' in name]
    options = ['--no-deps', '--no-build-isolation', '--no-index', '-w', base]
    python('-m', 'pip', 'wheel', sdist, *options, cwd=base)
    (wheel,) = base.glob('*.whl')
    with ZipFile(wheel) as archive:
        archive.extractall(base / 'site')
    return base / 'site'


def test_configs_and_tools_of_the_checkout_are_all_in_the_wheel(checkout, installed):
    mim = installed / 'illama_seg' / '.mim'
    assert (mim / 'model-index.yml').is_file()
    for folder in ('configs', 'tools'):
        files = {path for path in (checkout / folder).rglob('*') if path.is_file()}
        assert files
        for path in files:
            copy = mim / path.relative_to(checkout)
            assert copy.read_bytes() == path.read_bytes()
    templates = [path.name for path in PACKAGE.rglob('*.jinja')]
    assert templates
    for name in templates:
        assert list((installed / 'illama_seg').rglob(name)), name
    assert {
        path.name for path in installed.iterdir() if path.suffix != '.dist-info'
    } == {'illama_seg'}


@pytest.mark.slow
def test_an_installed_wheel_finds_configs_by_name(installed, tmp_path):
    code = """
import sys
import illama_seg
from mmengine.hub import get_config as hub_config
from illama_seg.apis import get_config, list_models, load_config
from illama_seg.checkpoints import RELEASED

installed = sys.argv[1]
assert illama_seg.__file__.startswith(installed), illama_seg.__file__
assert len(list_models()) > 40
for cfg in (
    get_config('upernet_illama_base_ade20k'),
    load_config('upernet_illama_base_ade20k.py'),
    load_config('configs/upernet_illama_base_ade20k.py'),
):
    assert cfg.filename.startswith(installed), cfg.filename
    assert cfg.model.decode_head.channels == 768
cfg = hub_config('illama_seg::pretrain/illama_tiny_in1k.py', pretrained=True)
assert cfg.filename.startswith(installed) and cfg.model.backbone.arch == 'tiny'
assert cfg.model_path == RELEASED['illama-tiny-in1k-75.0.pth'].url
"""
    python('-c', code, installed, cwd=tmp_path, path=installed)


@pytest.mark.slow
def test_an_installed_wheel_trains_by_name(installed, tmp_path):
    tool = installed / 'illama_seg' / '.mim' / 'tools' / 'train.py'
    options = [
        'model.backbone.arch.embed_dims=16',
        'model.backbone.arch.num_layers=1',
        'model.head.in_channels=16',
        'train_dataloader.dataset.indices=8',
        'val_dataloader.dataset.indices=8',
        'train_dataloader.batch_size=8',
        'effective_batch=8',
        'param_scheduler.0.warmup=0',
        'train_cfg.max_epochs=1',
        'custom_hooks.0.cutoff=1',
        'default_hooks.checkpoint.interval=1',
    ]
    command = [tool, 'illama_micro_digits', '--cfg-options', *options]
    python(*command, cwd=tmp_path, path=installed)
    assert (tmp_path / 'work_dirs' / 'illama_micro_digits' / 'epoch_1.pth').is_file()


def test_an_editable_installation_links_the_checkouts_configs(checkout, tmp_path):
    build = 'from setuptools import build_meta; build_meta.build_editable({!r})'
    for _ in range(2):  # again over what is there
        python('-c', build.format(str(tmp_path)), cwd=checkout)
    mim = checkout / 'illama_seg' / '.mim'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (mim / name).is_symlink()
        assert (mim / name).resolve() == checkout / name
