"""docs/troubleshooting.md quotes beginnings of messages that the source still has."""

import ast
import re

import pytest
from pages import ROOT, section

PAGE = (ROOT / 'docs' / 'troubleshooting.md').read_text()
QUOTED = re.findall(r'\*\*`([^`]+)`\*\*', section(PAGE, 'Messages of illama_seg'))


def literals(node):
    """The text of a string in the source, without what is formatted into it."""
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in node.values if isinstance(part, ast.Constant)]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    return []


SOURCE = '\n'.join(
    text
    for folder in ('illama_seg', 'tools')
    for path in (ROOT / folder).rglob('*.py')
    for node in ast.walk(ast.parse(path.read_text()))
    for text in literals(node)
)


@pytest.mark.parametrize('message', QUOTED)
def test_a_quoted_message_is_in_the_source(message):
    assert message in SOURCE


def test_a_message_is_quoted_once_and_briefly():
    assert len(QUOTED) >= 25 and len({*QUOTED}) == len(QUOTED)
    assert max(len(message.split()) for message in QUOTED) <= 10
