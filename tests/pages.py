"""The README, CONTRIBUTING.md and the pages of docs/, taken apart."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


@dataclass
class Block:
    """A fenced block: its language, the file that it says it is, its text."""

    language: str
    file: str
    text: str


def blocks(text):
    """All blocks of a page, in their order."""
    found = re.findall(r'^```(\w+) ?(\S*)\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    return [Block(*parts) for parts in found]


def section(text, title):
    """What stands under a heading, up to the next of its level or above."""
    level, fenced, found = 0, False, []
    for line in text.splitlines(keepends=True):
        fenced ^= line.startswith('```')
        heading = None if fenced else re.match(r'(#+) (.*)', line)
        if level and heading and len(heading[1]) <= level:
            break
        if level:
            found.append(line)
        elif heading and heading[2] == title:
            level = len(heading[1])
    assert level, title
    return ''.join(found)


def calls(text):
    """Lines of bash that call a program of this project, continued ones joined."""
    lines = [
        line
        for block in blocks(text)
        if block.language == 'bash'
        for line in block.text.replace('\\\n', ' ').splitlines()
    ]
    pattern = r'\b(?:tools|benchmarks)/\S+\.(?:py|sh)'
    return [line for line in lines if re.search(pattern, line.partition('#')[0])]


def prose(text):
    """A page without its blocks."""
    return re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
