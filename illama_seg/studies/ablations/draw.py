"""Drawings of the roadmap, as the paper's Figures 1 and 3b."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from illama_seg.visualization.curves import draw_mean

COLOURS = {'accuracy': '#1f5fa8', 'loss': '#c0504d'}
TITLES = {'accuracy': 'held-out accuracy, %', 'loss': 'training loss'}
_DASHED: dict[str, Any] = {'ls': '--', 'lw': 0.9}


def draw_roadmap(steps: dict[str, dict], path: str | Path) -> None:
    """Draw ``roadmap.summarise`` by step: a dot for each seed, a line at the mean."""
    figure = Figure(figsize=(10, 6), layout='constrained')
    axes = figure.subplots(2, 1, sharex=True)
    above: dict[str, Any] = dict(xytext=(0, 4), textcoords='offset points', fontsize=9)
    for axis, (key, digits) in zip(axes, dict(accuracy=1, loss=2).items(), strict=True):
        highest = []
        for place, step in enumerate(steps.values()):
            mean, seeds = step[key]['mean'], step[key]['seeds']
            axis.bar(place, mean, color=COLOURS[key], alpha=0.35, width=0.7)
            axis.hlines(mean, place - 0.35, place + 0.35, COLOURS[key], lw=2)
            axis.scatter([place] * len(seeds), seeds, s=14, color='black', zorder=3)
            highest.append(max(seeds))
            text = f'{mean:.{digits}f}'
            axis.annotate(text, (place, highest[-1]), ha='center', **above)
        axis.set_ylabel(TITLES[key])
        axis.set_ylim(0, 1.15 * max(highest))
        axis.spines[['top', 'right']].set_visible(False)
    axes[1].set_xticks(range(len(steps)), list(steps), rotation=35, ha='right')
    figure.suptitle('From ViT to iLLaMA, micro size, handwritten digits', fontsize=11)
    figure.savefig(path, dpi=110)


def draw_schedules(
    schedules: dict[str, list[dict]], end: int, path: str | Path
) -> None:
    """Draw loss and accuracy over the epochs for each schedule of the soft mask.

    The accuracy is drawn at the current rate and, dashed, at rate 0. At the end of the
    mask it changes from the first to the second without a training step.

    Args:
        schedules: schedule -> records of its seeds, from ``many_runs.train_runs``.
        end: epoch at whose end the rate of the soft mask is 0.
        path: image to write, with the mean and the range of the seeds.
    """
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    loss, accuracy = figure.subplots(1, 2)
    for number, (mode, seeds) in enumerate(schedules.items()):
        style: dict[str, Any] = dict(color=f'C{number}', lw=1.2)
        curves = [zip(*seed['loss_curve'], strict=True) for seed in seeds]
        epochs, losses = zip(*curves, strict=True)
        columns = zip(*losses, strict=True)
        draw_mean(loss, epochs[0], columns, label=f'soft mask: {mode}', **style)
        causal = [seed['causal_accuracy'] for seed in seeds]
        current = [
            [*seed['accuracy'][:end], *seed['causal_accuracy'][end - 1 :]]
            for seed in seeds
        ]
        places = [*range(1, end + 1), *range(end, len(causal[0]) + 1)]
        draw_mean(accuracy, places, zip(*current, strict=True), **style)
        if mode != 'none':
            closed = zip(*(row[:end] for row in causal), strict=True)
            draw_mean(accuracy, range(1, end + 1), closed, **style | _DASHED)
    loss.set_yscale('log')
    loss.set_yticks([0.5, 1, 2], ['0.5', '1', '2'])
    loss.minorticks_off()
    accuracy.plot([], [], color='grey', label='at the current rate')
    accuracy.plot([], [], color='grey', label='at rate 0', **_DASHED)
    last = len(causal[0])
    for axis, key in ((loss, 'loss'), (accuracy, 'accuracy')):
        axis.axvline(end, color='grey', lw=1, ls=':')
        axis.set_title('soft masks end', x=end / last, fontsize=9, color='grey')
        axis.set(xlim=(0, last), xlabel='epoch', ylabel=TITLES[key])
        axis.spines[['top', 'right']].set_visible(False)
        corner = 'upper right' if key == 'loss' else 'lower right'
        axis.legend(loc=corner, framealpha=1, edgecolor='none')
    figure.savefig(path, dpi=110)
