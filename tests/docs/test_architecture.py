"""docs/architecture.md and its picture show the rooms and imports that there are."""

import ast
import html
import json
import re
from pathlib import Path

from pages import ROOT
from test_imports import ALLOWED, MODULES, OUTSIDE, PACKAGE, imported

PAGE = (ROOT / 'docs' / 'architecture.md').read_text()
PICTURE = (ROOT / 'docs' / 'architecture.svg').read_text()
(EMBEDDED,) = re.findall('<dc:description>(.*)</dc:description>', PICTURE)
SHOWN = json.loads(html.unescape(EMBEDDED))
# Imported everywhere, so without a place in the picture.
SMALL = {
    'files', '__init__', 'errors', 'images', 'questions', 'quiet', 'version', 'windows'
}  # fmt: skip
TOOLS = [*(ROOT / 'tools').rglob('*.py')]


def part_of(module):
    return module.split('/')[0].removesuffix('.py')


def imports():
    """Room -> the rooms that it imports, by the source."""
    files = [(part_of(module), PACKAGE / module) for module in MODULES]
    found = {}
    for room, file in [*files, *(('tools', tool) for tool in TOOLS)]:
        for name in imported(ast.parse(file.read_text()), room):
            if name.startswith('illama_seg.'):
                found.setdefault(room, set()).add(name.split('.')[1])
    rooms = {part_of(module) for module in MODULES} - SMALL | {'tools'}
    return {room: sorted(found[room] & (rooms - {room})) for room in rooms}


def test_the_picture_shows_every_room_and_import_and_no_other():
    assert imports() == SHOWN, 'run: python docs/draw_architecture.py'
    assert set(SHOWN) - {'tools'} == set(ALLOWED) - SMALL
    for room in SHOWN:
        assert f'>{room}</text>' in PICTURE


def test_tools_import_what_a_user_imports():
    ours = set(imports()['tools'])
    assert ours <= {
        'apis', 'checkpoints', 'datasets', 'reports', 'studies', 'visualization', 'web'
    }  # fmt: skip


def test_the_page_names_every_part_and_the_folders_outside():
    for part in {part_of(module) for module in MODULES} - {'__init__'}:
        single = Path(PACKAGE, f'{part}.py').is_file()
        assert f'`{part}.py`' in PAGE if single else f'`{part}/`' in PAGE
    for folder in OUTSIDE:
        assert f'`{folder}/`' in PAGE
