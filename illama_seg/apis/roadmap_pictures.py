"""Pictures of the roadmap, in the manner of the paper's Figures 1 and 3b."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

COLOURS = {'accuracy': '#1f5fa8', 'loss': '#c0504d'}
TITLES = {'accuracy': 'held-out accuracy, %', 'loss': 'training loss'}


def draw_roadmap(steps: dict[str, dict], path: str | Path) -> None:
    """Accuracy and training loss by step: every seed a dot, the mean a line.

    Args:
        steps: name -> summary of :func:`illama_seg.apis.roadmap.summarise`.
        path: picture to write.
    """
    figure = Figure(figsize=(10, 6), layout='constrained')
    axes = figure.subplots(2, 1, sharex=True)
    for axis, key in zip(axes, ('accuracy', 'loss'), strict=True):
        rows = [step[key] for step in steps.values()]
        places, means = range(len(rows)), [row['mean'] for row in rows]
        axis.bar(places, means, color=COLOURS[key], alpha=0.35, width=0.7)
        for place, row in zip(places, rows, strict=True):
            axis.hlines(row['mean'], place - 0.35, place + 0.35, COLOURS[key], lw=2)
            seeds = row['seeds']
            axis.scatter([place] * len(seeds), seeds, s=14, color='black', zorder=3)
            axis.annotate(
                f'{row["mean"]:.1f}' if key == 'accuracy' else f'{row["mean"]:.2f}',
                (place, max(seeds)),
                xytext=(0, 4),
                textcoords='offset points',
                ha='center',
                fontsize=9,
            )
        axis.set_ylabel(TITLES[key])
        axis.set_ylim(0, 1.15 * max(max(row['seeds']) for row in rows))
        axis.spines[['top', 'right']].set_visible(False)
    axes[1].set_xticks(range(len(steps)), list(steps), rotation=35, ha='right')
    figure.suptitle('From ViT to iLLaMA, micro size, handwritten digits', fontsize=11)
    figure.savefig(path, dpi=110)


def draw_schedules(
    schedules: dict[str, list[dict]], end: int, path: str | Path
) -> None:
    """Loss and accuracy over the epochs by the soft mask's schedule.

    Args:
        schedules: schedule -> records of its seeds; the mean is drawn in their range.
        end: epoch in which the soft mask has come to 0.
        path: picture to write.
    """
    figure = Figure(figsize=(10, 3.8), layout='constrained')
    for axis, key in zip(figure.subplots(1, 2), ('loss', 'accuracy'), strict=True):
        for number, (mode, seeds) in enumerate(schedules.items()):
            columns = list(zip(*(seed[key] for seed in seeds), strict=True))
            epochs = range(1, len(columns) + 1)
            means = [sum(column) / len(column) for column in columns]
            axis.plot(epochs, means, color=f'C{number}', label=f'soft mask: {mode}')
            low, high = [min(c) for c in columns], [max(c) for c in columns]
            axis.fill_between(epochs, low, high, color=f'C{number}', alpha=0.15)
        axis.axvline(end, color='grey', lw=1, ls='--')
        axis.annotate(
            'soft masks end',
            (end, axis.get_ylim()[1]),
            xytext=(4, -12),
            textcoords='offset points',
            color='grey',
            fontsize=9,
        )
        axis.set_xlabel('epoch')
        axis.set_ylabel(TITLES[key])
        axis.spines[['top', 'right']].set_visible(False)
    axis.legend(loc='lower right', frameon=False)
    figure.savefig(path, dpi=110)
