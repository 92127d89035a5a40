"""Drawings of the roadmap, as the paper's Figures 1 and 3b."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from illama_seg.visualization.curves import draw_mean

COLOURS = {'accuracy': '#1f5fa8', 'loss': '#c0504d'}
TITLES = {'accuracy': 'held-out accuracy, %', 'loss': 'training loss'}
_DASHED: dict[str, Any] = {'ls': '--', 'lw': 0.9}


def draw_roadmap(steps: dict[str, dict], path: str | Path) -> None:
    """Draw accuracy and training loss by step: a dot for each seed, a line at the mean.

    Args:
        steps: name -> summary of ``roadmap.summarise``.
        path: image to write.
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
    """Draw loss and accuracy over the epochs for each schedule of the soft mask.

    The accuracy is drawn at the current rate and, dashed, at rate 0. At the end of the
    mask it changes from the first to the second without a training step.

    Args:
        schedules: schedule -> records of its seeds, from ``many_runs.train_runs``; the
            mean and the range of the seeds are drawn.
        end: epoch at whose end the rate of the soft mask is 0.
        path: image to write.
    """
    figure = Figure(figsize=(10, 4.2), layout='constrained')
    loss, accuracy = figure.subplots(1, 2)
    for number, (mode, seeds) in enumerate(schedules.items()):
        style: dict[str, Any] = dict(color=f'C{number}', lw=1.2)
        label = f'soft mask: {mode}'
        curves = [zip(*seed['loss_curve'], strict=True) for seed in seeds]
        epochs, losses = zip(*curves, strict=True)
        draw_mean(loss, epochs[0], _columns(losses), label=label, **style)
        causal = [seed['causal_accuracy'] for seed in seeds]
        current = [
            [*seed['accuracy'][:end], *seed['causal_accuracy'][end - 1 :]]
            for seed in seeds
        ]
        places = [*range(1, end + 1), *range(end, len(causal[0]) + 1)]
        draw_mean(accuracy, places, _columns(current), **style)
        if mode != 'none':
            dashed = style | _DASHED
            draw_mean(accuracy, range(1, end + 1), _columns(causal)[:end], **dashed)
    loss.set_yscale('log')
    loss.set_yticks([0.5, 1, 2], ['0.5', '1', '2'])
    loss.minorticks_off()
    accuracy.plot([], [], color='grey', label='at the current rate')
    accuracy.plot([], [], color='grey', label='at rate 0', **_DASHED)
    for axis, key in ((loss, 'loss'), (accuracy, 'accuracy')):
        axis.axvline(end, color='grey', lw=1, ls=':')
        axis.set_title(
            'soft masks end', x=end / len(causal[0]), fontsize=9, color='grey'
        )
        axis.set_xlim(0, len(causal[0]))
        axis.set_xlabel('epoch')
        axis.set_ylabel(TITLES[key])
        axis.spines[['top', 'right']].set_visible(False)
        corner = 'upper right' if key == 'loss' else 'lower right'
        axis.legend(loc=corner, framealpha=1, edgecolor='none')
    figure.savefig(path, dpi=110)


def _columns(rows: Iterable[Sequence[float]]) -> list[tuple[float, ...]]:
    return list(zip(*rows, strict=True))
