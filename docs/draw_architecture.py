"""Draw docs/architecture.svg from the imports in illama_seg/ and tools/."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
# Room -> its column (None: the whole width), its contents.
ROOMS = {
    'tools': (None, 'parse arguments, call a function, print'),
    'reports': (None, 'one page of all that was measured of a run'),
    'studies': (None, 'a room for each property: measure, draw, section of the report'),
    'apis': (
        None,
        'what a script calls: configs, training, testing, models, inference',
    ),
    'web': (None, 'a page on which models segment images'),
    'quantization': (1, '8-bit blocks'),
    'deploy': (3, 'exported files'),
    'integrations': (2, "timm, mmengine's reader"),
    'backbones': (1, 'ILLaMA'),
    'heads': (2, "UperNet's decode head"),
    'pretrain': (3, 'classifier, its data'),
    'checkpoints': (1, 'read safely, fit, convert'),
    'visualization': (4, 'overlays, curves'),
    'layers': (1, 'attention, block'),
    'engine': (0, 'hooks, loops, optimiser'),
    'evaluation': (4, 'scores, baselines'),
    'machine': (1, 'choices by measurement'),
    'datasets': (3, 'data sets, their checks'),
}


def imports() -> dict[str, list[str]]:
    """Return the rooms that each room imports, by the source."""
    found: dict[str, set[str]] = {}
    for path in [*(ROOT / 'illama_seg').rglob('*.py'), *(ROOT / 'tools').rglob('*.py')]:
        parts = path.relative_to(ROOT).parts
        rooms = found.setdefault(parts[parts[0] == 'illama_seg'], set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                text = ast.unparse(node).replace(' import ', '.')
                rooms.update(re.findall(r'\billama_seg\.(\w+)', text))
    names = {name for name in found if not name.endswith('.py')}
    return {room: sorted(found[room] & (names - {room})) for room in sorted(names)}


def draw(graph: dict[str, list[str]], file: Path) -> None:
    """Draw rooms on floors; leave out an import that a path of arrows implies."""

    @cache
    def below(room: str) -> set[str]:
        return set(graph[room]).union(*map(below, graph[room]))

    @cache
    def floor(room: str) -> int:
        return 1 + max(map(floor, graph[room]), default=-1)

    plt.rcParams |= {'svg.fonttype': 'none', 'svg.hashsalt': 'rooms'}
    axes = plt.figure(figsize=(10, 9)).add_axes((0, 0, 1, 1))
    axes.axis('off')
    for room, others in graph.items():
        column, contents = ROOMS[room]
        x, half = (2, 2.45) if column is None else (column, 0.45)
        y, face = floor(room), '#fdf0d9' if column is None else '#e4ecf7'
        axes.bar(x, 0.5, 2 * half, y - 0.25, color=face, edgecolor='#334466')
        axes.text(x, y + 0.03, room, ha='center', size=12, weight='bold')
        axes.text(x, y - 0.15, contents, ha='center', size=8.5)
        for other in others:
            if not any(other in below(between) for between in others):
                end = x if ROOMS[other][0] is None else ROOMS[other][0]
                way = (end, floor(other) + 0.25), (end if half > 1 else x, y - 0.25)
                axes.annotate('', *way, arrowprops=dict(arrowstyle='-|>', fc='#334466'))
    axes.set_ylim(-0.35)
    plt.savefig(file, metadata=dict(Date=None, Description=json.dumps(graph)))


if __name__ == '__main__':
    draw(imports(), ROOT / 'docs' / 'architecture.svg')
