"""docs/architecture.md and its picture show the packages and imports that there are."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pages import ROOT
from test_imports import ALLOWED, MODULES, OUTSIDE, PACKAGE, imported

PAGE = (ROOT / 'docs' / 'architecture.md').read_text()
PICTURE = ElementTree.parse(ROOT / 'docs' / 'architecture.svg')
# Without a place in the picture: small, or below everything.
SMALL = {'__init__', 'version', 'hub', 'quiet', 'machine'}


def part_of(module):
    return module.split('/')[0].removesuffix('.py')


def imports():
    """(part, part it imports) of every module of the package, by its source."""
    edges = set()
    for module in MODULES:
        tree, part = ast.parse((PACKAGE / module).read_text()), part_of(module)
        for name in imported(tree, part):
            if name.startswith('illama_seg.'):
                edges.add((part, name.split('.')[1]))
    return {(a, b) for a, b in edges if a != b and not {a, b} & SMALL}


def marked(css):
    """Elements of the picture of one class."""
    return [node for node in PICTURE.iter() if node.get('class') == css]


def test_the_picture_has_every_part_of_the_package_and_no_other():
    shown = {node.get('id') for node in marked('part')}
    assert shown == set(map(part_of, MODULES)) - SMALL == set(ALLOWED) - SMALL


def test_the_arrows_of_the_picture_are_the_imports_of_the_source():
    arrows = [n for n in marked('imports') if n.get('data-from')]
    shown = {(n.get('data-from'), n.get('data-to')) for n in arrows}
    assert len(shown) == len(arrows)
    assert shown - {('tools', 'apis')} == imports()


def test_tools_import_nothing_but_apis():
    for path in (ROOT / 'tools').rglob('*.py'):
        names = imported(ast.parse(path.read_text()), '')
        ours = {name.split('.')[1] for name in names if name.startswith('illama_seg.')}
        assert ours <= {'apis'}, path


def test_what_mmengine_builds_by_name_is_what_registers_something():
    shown = {n.get('data-to') for n in marked('names')} - {None}
    register = {
        part_of(module)
        for module in MODULES
        if '.register_module()' in (PACKAGE / module).read_text()
    }
    assert shown == register


@pytest.mark.parametrize('css', ['imports', 'names'])
def test_every_arrow_ends_at_the_edge_of_its_box(css):
    boxes = {}
    for node in marked('part'):
        (rect,) = (n for n in node if n.tag.endswith('rect'))
        x, y, w, h = (float(rect.get(k)) for k in ('x', 'y', 'width', 'height'))
        boxes[node.get('id')] = x, y, x + w, y + h
    for arrow in marked(css):
        if not arrow.get('data-to'):
            continue
        x = y = 0.0
        for letter, numbers in re.findall(r'([MVH])([\d. ]+)', arrow.get('d')):
            values = [float(n) for n in numbers.split()]
            x = values[0] if letter in 'MH' else x
            y = values[-1] if letter in 'MV' else y
        left, top, right, bottom = boxes[arrow.get('data-to')]
        assert (left <= x <= right and y == top) or (x == left and top <= y <= bottom)


def test_the_page_names_every_part_and_the_folders_outside():
    for part in set(map(part_of, MODULES)) - {'__init__'}:
        single = Path(PACKAGE, f'{part}.py').is_file()
        assert f'`{part}.py`' in PAGE if single else f'`{part}/`' in PAGE
    for folder in OUTSIDE:
        assert f'`{folder}/`' in PAGE
