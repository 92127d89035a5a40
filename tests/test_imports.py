import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import illama_seg
from illama_seg import apis, reports, studies, version, visualization

PACKAGE = Path(illama_seg.__file__).parent
ANYTHING = None

# Part of the package -> (its other parts that it may import, other distributions).
LOWER = {'errors', 'files', 'layers', 'checkpoints', 'datasets', 'evaluation'}
BELOW_APIS = LOWER | {
    'machine', 'quiet', 'version', 'engine', 'backbones', 'heads', 'pretrain',
    'questions',
    'visualization', 'quantization', 'windows', 'images', 'deploy',
}  # fmt: skip
ALLOWED = {
    'errors': (set(), set()),
    'files': ({'errors'}, {'tqdm'}),
    'version': (set(), {'cv2', 'packaging'}),
    'quiet': (set(), set()),
    'windows': ({'errors'}, {'numpy'}),
    'images': ({'errors', 'files'}, {'numpy', 'cv2'}),
    'deploy': (
        LOWER
        | {'images', 'windows', 'heads', 'pretrain', 'visualization', 'quantization'},
        ANYTHING,
    ),
    'machine': ({'errors'}, {'torch'}),
    'layers': ({'errors', 'machine'}, {'torch', 'triton'}),
    'checkpoints': (
        {'errors', 'files', 'layers'},
        {'torch', 'safetensors', 'filelock'},
    ),
    # The engine writes what the checkpoints read: one format.
    'engine': (
        {'errors', 'machine', 'checkpoints'},
        {'torch', 'mmengine', 'numpy'},
    ),
    'datasets': ({'errors', 'files'}, ANYTHING),
    'backbones': (
        {'errors', 'layers', 'checkpoints'},
        {'torch', 'mmengine', 'peft'},
    ),
    'heads': ({'errors', 'layers'}, {'torch', 'mmengine', 'mmcv', 'mmseg'}),
    'questions': (
        {'errors', 'files', 'backbones', 'heads'},
        {'torch', 'mmengine', 'safetensors'},
    ),
    'evaluation': ({'errors', 'layers', 'checkpoints', 'datasets'}, ANYTHING),
    'pretrain': (LOWER, ANYTHING),
    'visualization': ({'errors', 'files', 'evaluation'}, ANYTHING),
    'quantization': (
        {'errors', 'layers', 'backbones'},
        {'torch', 'mmengine', 'torchao'},
    ),
    'integrations': (
        {'errors', 'layers', 'backbones', 'checkpoints', 'datasets'},
        ANYTHING,
    ),
    'apis': (BELOW_APIS, ANYTHING),
    'studies': (BELOW_APIS | {'apis'}, ANYTHING),
    'reports': (BELOW_APIS | {'apis', 'studies'}, ANYTHING),
    'web': (BELOW_APIS | {'apis'}, ANYTHING),
    '__init__': (BELOW_APIS | {'integrations'}, set()),
}
OUTSIDE = {'tools', 'configs', 'tests', 'benchmarks'}


def imported(tree, part):
    """Dotted names of all imports of a module, wherever they stand in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ''
            if node.level:
                module = (
                    'illama_seg.' + (f'{part}.' if node.level == 1 else '') + module
                )
            if module.strip('.') == 'illama_seg':
                yield from (f'illama_seg.{alias.name}' for alias in node.names)
            else:
                yield module


def violations(source, part):
    """What a module of a part of the package does against the rules above."""
    tree = ast.parse(source)
    parts, distributions = ALLOWED[part]
    for name in imported(tree, part):
        top, _, rest = name.partition('.')
        if top == 'illama_seg':
            other = rest.split('.')[0]
            if other not in parts | {part}:
                yield f'imports {name}'
        elif top in OUTSIDE:
            yield f'imports {name}'
        elif top in sys.stdlib_module_names or distributions is ANYTHING:
            continue
        elif top not in distributions:
            yield f'imports {name}'
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == 'print':
                yield f'prints, in line {node.lineno}'
        elif isinstance(node, ast.ImportFrom) and node.names[0].name == '*':
            yield f'imports * from {node.module}'


MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob('*.py'))


@pytest.mark.parametrize('module', MODULES)
def test_module_imports_what_its_part_may_and_prints_nothing(module):
    part = module.split('/')[0].removesuffix('.py')
    assert part in ALLOWED, f'{part}: say in ALLOWED what it may import'
    assert not list(violations((PACKAGE / module).read_text(), part))


@pytest.mark.parametrize(
    ('part', 'source'),
    [
        ('layers', 'import mmengine'),
        ('layers', 'import numpy as np'),
        ('layers', 'from illama_seg.backbones import ILLaMA'),
        ('layers', 'from ..checkpoints import load_released'),
        ('backbones', 'def f():\n    from timm.layers import DropPath'),
        ('backbones', 'from illama_seg import apis'),
        ('checkpoints', 'from mmengine.runner import load_checkpoint'),
        ('engine', 'from illama_seg.backbones import ILLaMA'),
        ('engine', 'import illama_seg.backbones.illama'),
        ('pretrain', 'from illama_seg.backbones import ILLaMA'),
        ('datasets', 'from illama_seg.apis import predict'),
        ('datasets', 'from tools.train import main'),
        ('apis', 'import tests.conftest'),
        ('apis', 'print(1)'),
        ('apis', 'from mmseg.apis import *'),
    ],
)
def test_forbidden_import_is_found(part, source):
    assert list(violations(source, part))


@pytest.mark.parametrize(
    ('part', 'source'),
    [
        (
            'layers',
            'import math\nfrom torch import nn\nfrom .rotary import rotary_table',
        ),
        ('backbones', 'from illama_seg.layers import Block\nimport mmengine'),
        ('apis', 'from illama_seg.backbones import ILLaMA\nimport matplotlib'),
    ],
)
def test_allowed_import_is_not_found(part, source):
    assert not list(violations(source, part))


def test_importing_the_package_registers_everything_in_the_root_registries():
    code = """
import illama_seg
from mmengine import registry as r
for registry, names in (
    (r.MODELS, ['ILLaMA', 'ImageClassifier', 'LinearClsHead', 'ClsDataPreprocessor']),
    (r.MODELS, ['QuantizedILLaMA', 'TimmFeatures']),
    (r.DATASETS, ['CheckedADE20KDataset', 'CamVidDataset', 'ImageFolderDataset']),
    (r.DATASETS, ['ImageNetDataset', 'ImageNet21KPDataset', 'DigitsDataset']),
    (r.DATASETS, ['CIFAR10Dataset', 'CIFAR100Dataset']),
    (r.DATA_SAMPLERS, ['SeededSampler', 'WholeUpdatesSampler']),
    (r.HOOKS, ['SoftMaskHook', 'SafeCheckpointHook']),
    (r.HOOKS, ['PlainCheckpointHook']),
    (r.LOOPS, ['ResumableEpochTrainLoop', 'ResumableIterTrainLoop']),
    (r.METRICS, ['Accuracy']),
    (r.PARAM_SCHEDULERS, ['WarmupCosineLR']),
    (r.TRANSFORMS, ['CheckAnnotations', 'LoadRGBImage', 'ClsTransform']),
    (r.TRANSFORMS, ['PackClsInputs']),
    (r.OPTIM_WRAPPERS, ['AutocastOptimWrapper']),
    (r.OPTIM_WRAPPER_CONSTRUCTORS, ['LayerDecayConstructor']),
):
    for name in names:
        assert registry.module_dict[name].__module__.startswith('illama_seg.'), name
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


# The version guard

CONTINUED = {
    'torch': '2.14.1+cpu',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmsegmentation': '1.4.2',
}
ORIGINAL = {
    'torch': '2.6.0',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmsegmentation': '1.2.2',
}


@pytest.fixture
def installed(monkeypatch):
    """Make the guard believe that these distributions are installed."""
    return lambda versions: monkeypatch.setattr(version, '_version', versions.get)


@pytest.mark.parametrize('versions', [CONTINUED, ORIGINAL], ids=['onedl', 'original'])
def test_both_families_of_distributions_are_accepted(installed, versions):
    installed(versions)
    version.check_versions()


def test_the_installed_versions_are_accepted():
    version.check_versions()


@pytest.mark.parametrize(
    ('name', 'distribution', 'lowest'),
    [
        ('torch', 'torch', '2.6'),
        ('mmengine', 'onedl-mmengine', '0.10'),
        ('mmcv', 'onedl-mmcv', '2.0'),
        ('mmseg', 'onedl-mmsegmentation', '1.2'),
    ],
)
@pytest.mark.parametrize('found', [None, '0.9.1'])
def test_guard_names_package_found_needed_and_command(
    installed, name, distribution, lowest, found
):
    installed(CONTINUED | {distribution: found})
    expected = (
        f'illama_seg needs {name} >= {lowest}, found {found or "none"}: '
        f'pip install -U "{distribution}>={lowest}"'
    )
    with pytest.raises(ImportError, match=re.escape(expected)):
        version.check_versions()


@pytest.mark.parametrize('old', ['2.5.1', '2.5.1+cu124', '1.13.1'])
def test_versions_are_compared_as_numbers(installed, old):
    installed(CONTINUED | {'torch': old})
    with pytest.raises(ImportError, match=re.escape(f'found {old}')):
        version.check_versions()
    installed(CONTINUED | {'torch': '2.10.0'})
    version.check_versions()


def test_guard_says_what_to_do_when_opencv_does_not_load(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    with pytest.raises(ImportError, match='pip install opencv-python-headless'):
        version.check_versions()


LAZY = (apis, reports, studies, visualization)
lazy_room = pytest.mark.parametrize('room', LAZY, ids=lambda room: room.__name__)


@lazy_room
def test_no_name_of_a_room_is_a_module_of_it(room):
    """A module that is imported would take the place of the name."""
    modules = {path.stem for path in Path(room.__file__).parent.glob('*.py')}
    assert not modules & set(room.__all__)


@lazy_room
def test_every_name_of_a_room_is_there_and_no_other(room):
    for name in room.__all__:
        assert getattr(room, name).__name__ == name
    assert set(room.__all__) <= set(dir(room))
    with pytest.raises(AttributeError, match='nothing'):
        _ = room.nothing


def test_the_api_loads_no_library_that_draws_or_measures():
    code = (
        'import sys, illama_seg.apis as apis; apis.build_trainer; '
        'print(*{"matplotlib", "sklearn", "joblib", "jinja2"} & set(sys.modules))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()
