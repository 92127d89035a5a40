"""Draw the shape bias of models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_shape_bias(rows: Sequence[dict], path: str | Path) -> None:
    """Draw the study's models by category, with a line at each overall share."""
    names = sorted({name for row in rows for name in row['categories']})
    height = max(0.36 * len(names), 2.0) + 0.25 * len(rows) + 1.6
    figure = Figure(figsize=(7, height), layout='constrained')
    axes = figure.subplots()
    markers = 'osD^vPX*<>'
    for number, row in enumerate(rows):
        colour, overall = f'C{number % 10}', row['shape_bias']
        # Shifted vertically, so that equal shares do not hide each other.
        lift = 0.5 * ((number + 0.5) / len(rows) - 0.5)
        points = [
            (1 - scores['shape_bias'], names.index(name) + lift)
            for name, scores in row['categories'].items()
            if scores['shape_bias'] is not None
        ]
        text = 'no decision' if overall is None else f'{100 * overall:.1f} % shape'
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=46,
            marker=markers[number % len(markers)],
            color=colour,
            alpha=0.85,
            label=f'{row["name"]}: {text}',
            zorder=3,
        )
        if overall is not None:
            style = ('-', '--', '-.', ':')[number % 4]
            axes.axvline(1 - overall, color=colour, linestyle=style, linewidth=1.4)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis='y', color='#e5e5e5')
    axes.set(xlim=(-0.03, 1.03), xlabel="share of decisions for the texture's category")
    above = axes.secondary_xaxis('top', functions=(_complement, _complement))
    above.set_xlabel("share of decisions for the shape's category")
    axes.set_ylabel('category of the shape')
    figure.legend(loc='outside lower center', fontsize=9, frameon=False)
    figure.savefig(path, dpi=130)


def _complement(share: Any) -> Any:
    return 1 - share
