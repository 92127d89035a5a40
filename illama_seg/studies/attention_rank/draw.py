"""Curves of the singular values of attention maps."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from illama_seg.visualization.curves import draw_mean

STYLES = {'softmax': '--', 'masked': '-'}


def draw_attention_rank(
    models: Sequence[dict], layers: Sequence[int], path: str | Path
) -> None:
    """Draw the first head and the index by layer, and below them all heads.

    Figures 4 and 11 of arXiv 2404.06773: cumulative normalised singular values, dashed
    before the mask, solid after it. Takes ``models`` of ``measure_attention_rank`` and
    the numbers of the layers drawn, from 1.
    """
    heads = max(row['head'] for model in models for row in model['maps'])
    width = max(2.3 * heads, 9.0)
    height = 3.8 + 1.9 * len(layers) + 0.22 * len(models)
    figure = Figure(figsize=(width, height), layout='constrained')
    above, below = figure.subfigures(2, 1, height_ratios=(3.8, 1.9 * len(layers)))
    one, by_layer = above.subplots(1, 2)
    _draw_curves(one, models, layers[0], 1)
    one.set_title(f'layer {layers[0]}, head 1', fontsize=10)
    one.set(xlabel='singular values, largest first', ylabel='share of their sum')
    _draw_index(by_layer, models)
    cells = below.subplots(len(layers), heads, sharey=True, squeeze=False)
    for row, layer in zip(cells, layers, strict=True):
        for head, axes in enumerate(row, 1):
            if _draw_curves(axes, models, layer, head):
                axes.set_title(f'layer {layer}, head {head}', fontsize=8)
                axes.tick_params(labelsize=7)
            else:
                axes.set_axis_off()
    title = f'index at {models[0]["share"]:g} of layer {layers[0]}, head 1'
    figure.legend(
        *one.get_legend_handles_labels(),
        loc='outside lower center',
        title=title,
        title_fontsize=8,
        fontsize=8,
        ncols=2,
        frameon=False,
    )
    figure.savefig(path, dpi=110)


def _draw_curves(axes: Axes, models: Sequence[dict], layer: int, head: int) -> bool:
    """Draw the curves of a layer and head; return whether there is one."""
    for number, model in enumerate(models):
        for row in model['maps']:
            if (row['layer'], row['head']) == (layer, head):
                axes.plot(
                    range(1, row['tokens'] + 1),
                    row['curve'],
                    STYLES[row['kind']],
                    color=f'C{number % 10}',
                    linewidth=1.2,
                    label=f'{model["name"]}, {row["kind"]}: {row["index"]}',
                )
    drawn = bool(axes.lines)
    axes.axhline(models[0]['share'], color='grey', linestyle=':', linewidth=0.9)
    axes.set_ylim(0, 1.02)
    return drawn


def _draw_index(axes: Axes, models: Sequence[dict]) -> None:
    """Draw the index of each layer: mean and range of its heads."""
    for number, model in enumerate(models):
        for kind, style in STYLES.items():
            indices: dict[int, list[int]] = {}
            for row in model['maps']:
                if row['kind'] == kind:
                    indices.setdefault(row['layer'], []).append(row['index'])
            if indices:
                options = dict(linestyle=style, marker='.', color=f'C{number % 10}')
                draw_mean(axes, list(indices), indices.values(), **options)
    axes.set_title(f'index at {models[0]["share"]:g}', fontsize=10)
    axes.set_xlabel('layer: mean and range of its heads')
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
