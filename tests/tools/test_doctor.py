"""tools/doctor.py: the report, and each known problem with its cure."""

import ast
import importlib.util
import json
import os
import subprocess
import sys

import pytest
from tiny_run import ROOT

from illama_seg.version import REQUIRED

SCRIPT = ROOT / 'tools' / 'doctor.py'
SPEC = importlib.util.spec_from_file_location('doctor', SCRIPT)
doctor = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(doctor)

CONTINUED = {
    'numpy': '2.4.6',
    'opencv-python': '4.12.0.88',
    'torch': '2.14.1+cu130',
    'torchvision': '0.29.1+cu130',
    'timm': '1.0.31',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmsegmentation': '1.4.2',
}
ORIGINAL = {k: v for k, v in CONTINUED.items() if not k.startswith('onedl')} | {
    'torch': '2.6.0',
    'torchvision': '0.21.0',
    'mmengine': '0.10.8',
    'mmcv': '2.1.0',
    'mmsegmentation': '1.2.2',
}


def facts(versions=CONTINUED, errors=None, **more):
    """A machine with nothing wrong, but for what is given."""
    torch = dict(
        cuda=True,
        cuda_version='13.0',
        threads=8,
        gpus=['GPU'],
    )
    return dict(
        python='3.11.2',
        versions=versions,
        import_errors=dict.fromkeys([*doctor.PACKAGES, 'illama_seg']) | (errors or {}),
        torch=torch | more.pop('torch', {}),
        measured={},
        nvidia_driver=True,
        cores=8,
        shared_memory_mib=8000,
        open_files=65536,
        omp_num_threads=None,
    ) | dict(more)


def without(name):
    return {key: value for key, value in CONTINUED.items() if key != name}


@pytest.mark.parametrize('versions', [CONTINUED, ORIGINAL], ids=['onedl', 'original'])
def test_both_families_are_well(versions):
    assert list(doctor.problems(facts(versions))) == []


LIBGL = 'ImportError: libGL.so.1: cannot open shared object file'


@pytest.mark.parametrize(
    ('given', 'level', 'what', 'cure'),
    [
        (dict(python='3.9.18'), 'wrong', 'Python 3.9.18', '3.10'),
        (
            dict(versions=without('timm'), errors={'timm': 'No module'}),
            'wrong',
            'timm is missing',
            'pip install "timm>=1.0"',
        ),
        (
            dict(versions=CONTINUED | {'timm': '0.9.16'}),
            'wrong',
            'timm 0.9.16 is too old',
            'pip install -U "timm>=1.0"',
        ),
        (
            dict(versions=CONTINUED | {'mmengine': '0.10.12'}),
            'wrong',
            'onedl-mmengine 0.10.12 and mmengine 0.10.12 are installed at once',
            'pip uninstall -y onedl-mmengine mmengine && pip install onedl-mmengine',
        ),
        (
            dict(versions=CONTINUED | {'opencv-python-headless': '4.11.0.86'}),
            'wrong',
            'opencv-python-headless 4.11.0.86 are installed at once',
            'pip install opencv-python-headless',
        ),
        (
            dict(versions=CONTINUED | {'opencv-python-headless': '4.12.0.88'}),
            'note',
            'opencv-python-headless 4.12.0.88 are installed at once',
            'pip install opencv-python-headless',
        ),
        (
            dict(versions=CONTINUED | {'torchvision': '0.28.0'}),
            'wrong',
            'torchvision 0.28.0 is not for torch 2.14.1',
            '"torchvision==0.29.*"',
        ),
        (
            dict(versions=CONTINUED | {'torchvision': '0.29.1+cpu'}),
            'wrong',
            'torchvision 0.29.1+cpu is not for torch 2.14.1+cu130',
            'from the index',
        ),
        (dict(errors={'cv2': LIBGL}), 'wrong', 'libGL.so.1', 'opencv-python-headless'),
        (dict(errors={'timm': 'ValueError: odd'}), 'wrong', 'odd', 'says more'),
        (
            dict(torch=dict(cuda=False, cuda_version=None, gpus=[])),
            'wrong',
            'built for the CPU only',
            'pytorch.org',
        ),
        (
            dict(torch=dict(cuda=False, gpus=[])),
            'wrong',
            'built for CUDA 13.0',
            'driver',
        ),
        (dict(shared_memory_mib=64), 'wrong', '64 MiB of shared', '--shm-size'),
        (dict(open_files=256), 'wrong', '256 open files', 'ulimit -n'),
        (dict(omp_num_threads='64'), 'note', 'OMP_NUM_THREADS=64', 'unset'),
    ],
)
def test_a_known_problem_is_found_with_its_cure(given, level, what, cure):
    found = list(doctor.problems(facts(**given)))
    matching = [problem for problem in found if what in problem['what']]
    assert matching, found
    assert matching[0]['level'] == level and cure in matching[0]['cure']
    assert len(found) == 1


@pytest.mark.parametrize(
    'given',
    [
        dict(torch=dict(cuda=False, cuda_version=None, gpus=[]), nvidia_driver=False),
        dict(shared_memory_mib=False, open_files=None),
        dict(omp_num_threads='1'),  # what torchrun sets
    ],
)
def test_what_is_well_is_not_a_problem(given):
    assert list(doctor.problems(facts(**given))) == []


def test_one_cause_is_told_once_and_what_stands_on_a_missing_package_not_at_all():
    error = 'OSError: libtorch.so: undefined symbol: x'
    names = ('torch', 'torchvision', 'timm', 'illama_seg')
    (found,) = doctor.problems(facts(errors=dict.fromkeys(names, error)))
    assert 'import torch: ' in found['what']
    given = facts(without('timm'), {'timm': 'No module', 'illama_seg': 'No timm'})
    (found,) = doctor.problems(given)
    assert found['what'] == 'timm is missing'


def test_lowest_versions_are_those_of_the_package():
    for name, (distributions, lowest) in REQUIRED.items():
        theirs, theirs_lowest = doctor.PACKAGES[name]
        assert theirs_lowest == lowest
        assert theirs[: len(distributions)] == distributions


def test_it_imports_nothing_but_the_standard_library():
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split('.')[0])
    assert names <= set(sys.stdlib_module_names)


@pytest.fixture
def broken(tmp_path):
    """A folder in front of the installed packages, whose torch and mmseg break."""
    (tmp_path / 'torch.py').write_text("raise ImportError('torch is broken')")
    (tmp_path / 'mmseg.py').write_text('import os; os._exit(11)')
    for name in ('cv2', 'torchvision', 'timm', 'mmengine', 'mmcv', 'illama_seg'):
        (tmp_path / f'{name}.py').touch()  # nothing here takes its time
    return tmp_path


def test_it_reports_where_torch_and_mmseg_cannot_be_imported(broken):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), '--json', str(broken / 'out' / 'report.json')],
        env=os.environ | {'PYTHONPATH': str(broken)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1 and not done.stderr
    assert 'WRONG  import torch: ImportError: torch is broken' in done.stdout
    assert 'WRONG  import mmseg: it ended the process (11)' in done.stdout
    report = json.loads((broken / 'out' / 'report.json').read_text())
    assert report['torch'] == {} and report['import_errors']['timm'] is None
    assert {'wrong', 'note'} >= {found['level'] for found in report['problems']}
    assert report['versions'].keys() >= {'torch', 'numpy'}
    assert report['cores'] >= 1 and report['open_files'] != 0


def test_a_machine_that_is_well_ends_with_0(monkeypatch, capsys):
    monkeypatch.setattr(doctor, 'gather', facts)
    monkeypatch.setattr(sys, 'argv', ['doctor.py'])
    with pytest.raises(SystemExit) as end:
        doctor.main()
    assert not end.value.code
    text = capsys.readouterr().out
    assert text.endswith('nothing wrong\n')
    assert '2.14.1+cu130 (torch)' in text and '0.10.12 (onedl-mmengine)' in text
    assert 'GPUs          GPU\n' in text


def test_an_import_without_end_is_given_up(tmp_path, monkeypatch):
    (tmp_path / 'endless.py').write_text('while True: pass')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    errors = doctor.try_imports(['json', 'endless', 'ast'], timeout=2)
    assert errors == {'json': None, 'endless': 'no end in 2 s', 'ast': None}


def test_torch_answers_what_is_asked():
    asked = doctor.ask(doctor.ASK_TORCH)
    assert asked['threads'] >= 1 and isinstance(asked['cuda'], bool)
    assert bool(asked['gpus']) == asked['cuda']


def test_the_package_answers_what_was_measured(capsys):
    asked = doctor.ask(doctor.ASK_PACKAGE)
    doctor.report(facts(measured=asked), [])
    text = capsys.readouterr().out
    assert 'waiting       ' in text and 'in float32 against' in asked['precision']
    assert asked['precision'] in text and asked['choices'] in text
