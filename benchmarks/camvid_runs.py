"""Studies on CamVid: runs that are trained, evaluated, kept as JSON, and contrasted.

A study is a table of groups, of which each differs in the seed alone, and a list of
contrasts between them. A finished run is not trained again. The last iteration is
evaluated on the 101 validation frames, as tools/test.py does.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from illama_seg.apis import (
    StreamSegmentor,
    load_config,
    load_segmentor,
    parse_cfg_options,
    predict,
)
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
PARTS = 10  # of the height of a frame


@dataclass(frozen=True)
class Evaluation:
    """Options of an evaluation, beyond those of the training.

    Attributes:
        options: that override the config.
        streamed: the labels are those of ``StreamSegmentor``, as rows arrive.
        turned: images and labels are turned by 180 degrees; the heights are those of
            the image before.
    """

    options: Sequence[str] = ()
    streamed: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone.

    Attributes:
        title: for the tables.
        config: file in ``configs``, without suffix.
        options: that the training overrides; '{pretraining}' is replaced.
        seeds: of the runs.
        evaluations: by name; '' is the config's own.
        pretrainings: number of the checkpoint that each seed starts from.
        shared: seed -> another group, of which the run is one already.
    """

    title: str
    config: str
    options: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2, 3)
    evaluations: Mapping[str, Evaluation] = field(
        default_factory=lambda: {'': Evaluation()}
    )
    pretrainings: Sequence[int] = (0, 0, 0, 0)
    shared: Mapping[int, str] = field(default_factory=dict)

    def options_of(self, seed: int) -> list[str]:
        """Return the options of a seed's training."""
        pretraining = self.pretrainings[self.seeds.index(seed)]
        return [option.format(pretraining=pretraining) for option in self.options]


Side = tuple[str, str]  # group, evaluation


@dataclass(frozen=True)
class Study:
    """Groups, contrasts, and the drawing of a study.

    Attributes:
        name: of its folders.
        groups: by name.
        contrasts: title, then both sides; primary ones first.
        panels: title -> sides whose IoU is drawn by the height in the image.
    """

    name: str
    groups: Mapping[str, Group]
    contrasts: Sequence[tuple[str, Side, Side]]
    panels: Mapping[str, Sequence[Side]]

    @property
    def results(self) -> Path:
        """Folder of a JSON file for each run."""
        return ROOT / 'docs' / self.name


def train(group: Group, seed: int, work_dir: Path) -> Path:
    """Train a run where that is not done; return its checkpoint."""
    found = sorted(work_dir.glob('iter_*.pth'))
    config = f'configs/{group.config}.py'
    last = load_config(ROOT / config).train_cfg.max_iters
    if found and found[-1].stem == f'iter_{last}':
        return found[-1]
    arguments = [
        f'randomness.seed={seed}',
        'default_hooks.checkpoint.save_best=None',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        *group.options_of(seed),
    ]
    command = [sys.executable, 'tools/train.py', config, '--work-dir', str(work_dir)]
    command += ['--resume'] if found else []
    subprocess.run([*command, '--cfg-options', *arguments], check=True, cwd=ROOT)
    return work_dir / f'iter_{last}.pth'


def segment(model, image: np.ndarray, evaluation: Evaluation) -> np.ndarray:
    """Return the labels of a frame, (H, W)."""
    if evaluation.turned:
        image = np.ascontiguousarray(image[::-1, ::-1])
    if evaluation.streamed:
        segmentor = StreamSegmentor(model, len(image))
        found = np.concatenate([segmentor.push(image), segmentor.finish()])
    else:
        found = predict(model, image)
    return found[::-1, ::-1] if evaluation.turned else found


def evaluate(
    config: str, options: Sequence[str], checkpoint: Path, evaluation: Evaluation
) -> dict:
    """Return the scores of a checkpoint, and the hits and unions by height."""
    options = [*options, *evaluation.options]
    cfg = load_config(ROOT / config, parse_cfg_options(options))
    model = load_segmentor(cfg, checkpoint, fold=True)
    pairs = LabelledImages(cfg, 'val')
    classes = model.dataset_meta['classes']
    parts = [ConfusionMatrix(classes) for _ in range(PARTS)]
    for image, label, _ in tqdm(pairs, ' '.join(options) or config, unit='image'):
        predicted = segment(model, image, evaluation)
        edges = np.linspace(0, len(label), PARTS + 1).round().astype(int)
        for part, top, end in zip(parts, edges[:-1], edges[1:], strict=True):
            part.update(label[top:end], predicted[top:end])
    total = ConfusionMatrix(classes)
    total.counts = sum(part.counts for part in parts)
    hits = [np.diag(part.counts).tolist() for part in parts]
    unions = [
        (part.counts.sum(0) + part.counts.sum(1) - np.diag(part.counts)).tolist()
        for part in parts
    ]
    return dict(**total.summary(), hits=hits, unions=unions)


def run(study: Study, name: str, seed: int, work_dirs: Path, results: Path) -> None:
    """Train and evaluate a run, and write its file.

    A run that has a file is evaluated where an evaluation is new and its checkpoint is
    still there.
    """
    path, group = results / f'{name}_{seed}.json', study.groups[name]
    if seed in group.shared:
        other = group.shared[seed]
        run(study, other, seed, work_dirs, results)
        numbers = json.loads((results / f'{other}_{seed}.json').read_text())
        write_whole(path, json.dumps(numbers | dict(group=name)) + '\n')
        return
    config, options = f'configs/{group.config}.py', group.options_of(seed)
    numbers = dict(group=name, seed=seed, config=config, options=options)
    work_dir = work_dirs / name / str(seed)
    known = {}
    if path.exists():
        known = json.loads(path.read_text())['evaluations']
        is_complete = known.keys() >= group.evaluations.keys()
        if is_complete or not any(work_dir.glob('iter_*.pth')):
            return
    checkpoint = train(group, seed, work_dir)
    evaluations = {
        title: known.get(title) or evaluate(config, options, checkpoint, evaluation)
        for title, evaluation in group.evaluations.items()
    }
    write_whole(path, json.dumps(numbers | dict(evaluations=evaluations)) + '\n')


def scores(results: Path) -> dict[Side, dict[int, dict]]:
    """(group, evaluation) -> seed -> scores, of all files there are."""
    found: dict[Side, dict[int, dict]] = {}
    for path in sorted(results.glob('*_?.json')):
        numbers = json.loads(path.read_text())
        for title, values in numbers['evaluations'].items():
            place = found.setdefault((numbers['group'], title), {})
            place[numbers['seed']] = values
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and sample deviation."""
    mean = f'{statistics.fmean(values):.1f}'
    return f'{mean} ± {statistics.stdev(values):.1f}' if len(values) > 1 else mean


def report(study: Study, results: Path) -> str:
    """Return the tables in Markdown."""
    found = scores(results)
    lines = ['| run | evaluated | mIoU, % | each seed |', '|---|---|---|---|']
    for name, group in study.groups.items():
        for title in group.evaluations:
            runs = found.get((name, title), {})
            values = [runs[seed]['mIoU'] for seed in sorted(runs)]
            if values:
                each = ', '.join(f'{value:.1f}' for value in values)
                lines.append(f'| {group.title} | {title} | {spread(values)} | {each} |')
    lines += ['', '| contrast | mIoU, points | each seed |', '|---|---|---|']
    for title, first, second in study.contrasts:
        ours, theirs = found.get(first, {}), found.get(second, {})
        pairs = sorted(ours.keys() & theirs.keys())
        values = [ours[seed]['mIoU'] - theirs[seed]['mIoU'] for seed in pairs]
        if values:
            names = ' minus '.join(
                f'{study.groups[name].title}{f" ({part})" if part else ""}'
                for name, part in (first, second)
            )
            each = ', '.join(f'{value:+.1f}' for value in values)
            lines.append(f'| {title}: {names} | {spread(values)} | {each} |')
    return '\n'.join(lines)


def draw(study: Study, results: Path, path: Path) -> None:
    """Draw the mean IoU of the classes by height in the image, mean of the seeds."""
    found, panels = scores(results), study.panels
    figure = Figure(figsize=(4 * len(panels), 4), layout='constrained')
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    height = (np.arange(PARTS) + 0.5) / PARTS
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for key in lines:
            runs = found.get(key, {}).values()
            if not runs:
                continue
            curves = []
            for values in runs:
                hits, unions = np.array(values['hits']), np.array(values['unions'])
                # A class with few pixels at a height would be chance.
                enough = unions >= 1000
                iou = np.where(enough, 100 * hits / np.maximum(unions, 1), np.nan)
                curves.append(np.nanmean(iou, axis=1))
            label = study.groups[key[0]].title
            axis.plot(np.mean(curves, axis=0), height, label=label)
        axis.set(title=title, xlabel='mean IoU of the classes there, %')
        if axis.lines:
            axis.legend(loc='lower right', fontsize=8)
    axes[0].set(ylabel='height in the image, 0 at the top')
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def main(study: Study, description: str | None) -> None:
    """Run the groups that are asked for, and report all that there is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--groups', nargs='*', choices=list(study.groups), default=list(study.groups)
    )
    parser.add_argument('--seeds', nargs='+', type=int, help='of those of the study')
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs', study.name))
    parser.add_argument('--results', type=Path, default=study.results)
    args = parser.parse_args()
    args.results.mkdir(parents=True, exist_ok=True)
    for name in args.groups:
        for seed in study.groups[name].seeds:
            if args.seeds is None or seed in args.seeds:
                run(study, name, seed, args.work_dirs.resolve(), args.results)
    print(report(study, args.results))
    draw(study, args.results, args.results / 'rows.png')
