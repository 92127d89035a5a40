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


def test_every_picture_in_the_readme_exists():
    for path in re.findall(r'!\[.*?\]\((.*?)\)', README):
        assert (ROOT / path).is_file()


def test_every_make_target_in_the_readme_exists():
    makefile = (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'(?:^|`)make ([\w-]+)', README, re.MULTILINE))
    assert {'demo', 'test', 'check'} <= targets
    for target in targets:
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


CALLS = [
    line
    for line in SHELL.replace('\\\n', ' ').splitlines()
    if re.search(r'tools/\S+\.(py|sh)', line)
]


@pytest.mark.parametrize('call', CALLS, ids=lambda call: ' '.join(call.split())[:60])
def test_every_long_option_of_a_call_belongs_to_the_tool_called(call):
    tool, arguments = re.search(r'(tools/\S+\.(?:py|sh))(.*)', call).groups()
    tool = tool.replace('dist_', '').replace('.sh', '.py')
    source = (ROOT / tool).read_text()
    for option in re.findall(r'\s(--[a-z-]+)', arguments):
        assert f"'{option}'" in source, option


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
