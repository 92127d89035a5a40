"""docs/troubleshooting.md quotes messages that the source still has."""

import ast
import re

import pytest
from pages import ROOT, section

PAGE = (ROOT / 'docs' / 'troubleshooting.md').read_text()
ELLIPSIS = '...'


def quoted(text):
    """Messages in bold code, on one line each."""
    return re.findall(r'\*\*`([^`]+)`\*\*', text)


def template(node):
    """A string of the source, a {} for each part that is not known before it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r'%[sd]', '{}', node.value)
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            part.value if isinstance(part, ast.Constant) else '{}'
            for part in node.values
        )
    if isinstance(node, ast.BinOp):
        return ''.join(template(side) or '{}' for side in (node.left, node.right))
    return None


def source_strings():
    """All strings of the package and the tools, white space made single."""
    paths = [*(ROOT / 'illama_seg').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if (found := template(node)) is not None:
                yield ' '.join(found.split())
    for path in (ROOT / 'tools').glob('*.sh'):
        text = re.sub(r'"\s*\\\n\s*"', ' ', path.read_text())
        yield ' '.join(re.sub(r'\$\w+', '{}', text).split())


STRINGS = sorted(set(source_strings()))
OURS = quoted(section(PAGE, 'Messages of illama_seg'))


def occurs(message, strings):
    parts = [re.escape(part.strip()) for part in message.split(ELLIPSIS)]
    pattern = re.compile('.*'.join(parts))
    return any(pattern.search(string) for string in strings)


@pytest.mark.parametrize('message', OURS, ids=lambda message: message[:50])
def test_a_message_quoted_as_ours_is_in_the_source(message):
    assert max(map(len, message.split(ELLIPSIS))) >= 10, 'too little to be found'
    assert occurs(message, STRINGS)


@pytest.mark.parametrize(
    ('message', 'found'),
    [
        ('no file at ...', True),
        ('no file at ...: look', True),
        ('no file in ...', False),
        ('no file at ...: see', False),
    ],
)
def test_a_quotation_is_compared_word_by_word(message, found):
    assert occurs(message, ['no file at {}: look elsewhere', 'other']) is found


def test_no_message_is_quoted_twice():
    others = quoted(section(PAGE, 'Messages of others'))
    assert len(OURS) >= 40 and len(others) >= 15
    assert len({*OURS, *others}) == len(OURS) + len(others)
