"""The README's commands, pictures and Python name what exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```(\w+)\n(.*?)```', README, re.DOTALL)
SHELL = '\n'.join(text for language, text in BLOCKS if language == 'bash')
PYTHON = [text for language, text in BLOCKS if language == 'python']


@pytest.mark.parametrize(
    'path', sorted(set(re.findall(r'(?:tools|configs)/[\w./]+', README)))
)
def test_every_path_in_the_readme_exists(path):
    assert (ROOT / path).exists()


def test_every_picture_in_the_readme_exists_and_no_figure_is_left_open():
    for path in re.findall(r'!\[.*?\]\((.*?)\)', README):
        assert (ROOT / path).is_file()
    assert not re.findall(r'(?:DEMO|CAMVID|SMALL|LARGE)_\w+', README)


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'(?:^|`)make ([\w-]+)', README, re.MULTILINE))
    assert {'demo', 'test', 'check'} <= targets
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_every_long_option_in_the_readme_belongs_to_a_tool_it_calls():
    sources = ' '.join(file.read_text() for file in (ROOT / 'tools').rglob('*.py'))
    calls = [line for line in SHELL.splitlines() if 'tools/' in line]
    options = set(re.findall(r'(?<=\s)(--[a-z-]+)', '\n'.join(calls)))
    slurm = {'--gres', '--ntasks', '--ntasks-per-node', '--cpus-per-task'}
    assert options
    for option in options - slurm:
        assert f"'{option}'" in sources, option


@pytest.mark.parametrize('code', PYTHON)
def test_python_of_the_readme_compiles(code):
    compile(code, 'README.md', 'exec')


def test_backbone_example_of_the_readme_runs():
    (code,) = (text for text in PYTHON if 'MODELS.build' in text)
    # The released file is not at hand: everything but its loading is as printed.
    without_file = re.sub(r'\n\s+init_cfg=.*', '', code)
    assert without_file != code
    names: dict = {}
    exec(without_file, names)
    assert [tuple(f.shape) for f in names['features']] == [(1, 192, 32, 21)] * 4
