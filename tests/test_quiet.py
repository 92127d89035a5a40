"""The terminal holds what is ours and errors; --help and imports load little."""

import json
import logging
import subprocess
import sys
import warnings

import pytest
from tiny_run import CONFIG, ROOT, run_python, tiny_options

from illama_seg import quiet

TOOLS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / 'tools').rglob('*.py')
    if path.name not in ('doctor.py', 'arguments.py')
)
HEAVY = ('matplotlib', 'joblib', 'sklearn', 'torchao', 'transformers', 'peft')
# Run a tool as a program, then tell what it has loaded.
HELP = """
import json, os, runpy, sys
sys.argv = [sys.argv[1], '--help']
sys.path[0] = os.path.dirname(sys.argv[0])
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


def known(text):
    """Lines of the libraries that are to be kept off the terminal, found in a text."""
    warned = [beginning for _, beginning in quiet.WARNED]
    parts = [part.strip().splitlines()[-1] for part in quiet.LOGGED]
    return [p for p in (*quiet.PRINTED, *warned, *parts) if p in text]


def test_a_training_says_what_is_ours_and_its_log_file_says_all(run):
    assert not known(run.log)
    assert 'warn' not in run.log.lower()
    assert run.log.count('\nprecision ') == 1 and 'Iter(train)' in run.log
    first, *_ = sorted(run.work_dir.glob('*/*.log'))  # tests of the run add theirs
    text = first.read_text()
    assert len(known(text)) == len(quiet.LOGGED)
    assert 'Fail to import' not in text


@pytest.mark.slow
def test_a_test_and_a_segmentation_are_quiet(run, tmp_path):
    options = ['--cfg-options', *tiny_options(run.data)]
    image = run.data / 'images' / 'validation' / 'validation_0.jpg'
    for command in (
        ['test.py', run.config, run.checkpoint, '--work-dir', tmp_path, *options],
        ['infer.py', run.config, run.checkpoint, image, '--out', tmp_path / 'out'],
        ['analysis/report.py', run.work_dir],
    ):
        done = run_python(ROOT / 'tools' / command[0], *command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert not known(done.stdout + done.stderr), command[0]
        assert 'Warning' not in done.stdout + done.stderr, done.stderr


def test_an_import_prints_nothing(tmp_path):
    done = run_python('-c', 'import illama_seg.apis', cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ('', '', 0)


def test_other_lines_warnings_and_records_get_through(capsys):
    with quiet.quiet_imports():
        print(quiet.PRINTED[0])
        print('Could not import something else')
        print()
        print(quiet.PRINTED[0], 'and more')
    assert capsys.readouterr().out == (
        f'Could not import something else\n\n{quiet.PRINTED[0]} and more\n'
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        quiet.ignore_known_warnings()
        for module, beginning in quiet.WARNED:
            text = f'{beginning} and so on'
            warnings.warn_explicit(text, FutureWarning, 'file', 1, module)
        warnings.warn_explicit(text, UserWarning, 'file', 1, f'{module}.other')
        warnings.warn('Default something is False', stacklevel=1)
    assert [str(warning.message) for warning in seen] == [
        text,
        'Default something is False',
    ]
    record = logging.makeLogRecord
    for name, beginning in quiet.TOLD:
        logger = logging.getLogger(name)
        assert not logger.filter(record(dict(msg=f'{beginning} and so on')))
        assert logger.filter(record(dict(msg='another message')))
    assert quiet._is_not_known(record(dict(msg='Configuration')))
    assert not quiet._is_not_known(record(dict(msg='Config:\nx = 1')))


@pytest.mark.parametrize('tool', TOOLS)
def test_help_answers_without_torch(tool):
    done = subprocess.run(
        [sys.executable, '-c', HELP, str(ROOT / tool)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    heavy = {'torch', 'mmengine', 'mmseg', 'cv2', 'numpy', 'illama_seg', *HEAVY}
    assert not heavy & set(loaded)
    assert 'usage: ' in done.stdout


@pytest.mark.parametrize(
    'code',
    [
        'import illama_seg',
        'from illama_seg.apis import build_tester, build_trainer, load_config',
        'from illama_seg.apis import load_segmentor, predict',
    ],
)
def test_an_import_loads_no_heavy_library_that_it_does_not_use(code, tmp_path):
    tell = f'import sys\n{code}\nprint(*[n for n in {HEAVY} if n in sys.modules])'
    done = run_python('-c', tell, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ('\n', '')


def test_the_configs_name_their_options_by_one_reader(tmp_path):
    done = run_python(
        ROOT / 'tools' / 'train.py', CONFIG, '--cfg-options', 'a', cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == 'error: --cfg-options a: expected KEY=VALUE\n'
