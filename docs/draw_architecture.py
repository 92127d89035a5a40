"""Draw docs/architecture.svg from the imports in illama_seg/ and tools/."""

import ast
import json
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
SMALL = {'__init__', 'errors', 'quiet', 'version'}  # imported everywhere, so not drawn
# Room -> its column (None: the whole width), its contents.
ROOMS = {
    'tools': (None, 'parse arguments, call a function, print'),
    'reports': (None, 'one page of all that was measured of a run'),
    'studies': (None, 'a room for each property: measure, draw, section of the report'),
    'apis': (
        None,
        'what a script calls: configs, training, testing, models, inference',
    ),
    'quantization': (1, '8-bit blocks'),
    'integrations': (2, "timm, mmengine's reader"),
    'backbones': (1, 'ILLaMA'),
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
        package, room = path.relative_to(ROOT).with_suffix('').parts[:2]
        room = package if package == 'tools' else room
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom | ast.Import):
                modules = [
                    f'{getattr(node, "module", "")}.{a.name}' for a in node.names
                ]
                parts = [module.strip('.').split('.') for module in modules]
                rooms = {names[1] for names in parts if names[0] == 'illama_seg'}
                found.setdefault(room, set()).update(rooms - {room})
    names = set(found) - SMALL
    return {room: sorted(found[room] & names) for room in sorted(names)}


def draw(graph: dict[str, list[str]], file: Path) -> None:
    """Draw rooms on floors; leave out an import that a path of arrows implies."""

    @cache
    def below(room: str) -> set[str]:
        return set(graph[room]).union(*map(below, graph[room]))

    @cache
    def floor(room: str) -> int:
        return 1 + max(map(floor, graph[room]), default=-1)

    plt.rcParams |= {'svg.fonttype': 'none', 'svg.hashsalt': 'rooms'}
    axes = plt.figure(figsize=(10, 9)).add_axes((0, 0, 1, 1), xlim=(-0.55, 4.55))
    axes.set(ylim=(-0.5, max(map(floor, graph)) + 0.5))
    axes.axis('off')
    for room, others in graph.items():
        column, contents = ROOMS[room]
        x, half = (2, 2.45) if column is None else (column, 0.45)
        y, face = floor(room), '#fdf0d9' if column is None else '#e4ecf7'
        corner = x - half, y - 0.25
        axes.add_patch(plt.Rectangle(corner, 2 * half, 0.5, fc=face, ec='#334466'))
        axes.text(x, y + 0.08, room, ha='center', va='center', size=12, weight='bold')
        axes.text(x, y - 0.12, contents, ha='center', va='center', size=8.5)
        for other in others:
            if not any(other in below(between) for between in others):
                end = x if ROOMS[other][0] is None else ROOMS[other][0]
                way = (end, floor(other) + 0.25), (end if half > 1 else x, y - 0.25)
                axes.annotate('', *way, arrowprops=dict(arrowstyle='-|>', fc='#334466'))
    plt.savefig(file, metadata=dict(Date=None, Description=json.dumps(graph)))


if __name__ == '__main__':
    draw(imports(), ROOT / 'docs' / 'architecture.svg')
