"""Heads, latencies and questions on CamVid: what docs/decoder_study.md reports.

    python benchmarks/decoder_study.py [--groups strict_tokens ...] [--seeds 0 1]
    python benchmarks/decoder_study.py --groups   # none: the report alone

Trains each group with each seed, one after the other, into WORK_DIRS/GROUP/SEED; a
finished run is not trained again. Evaluates the last iteration on the 101 validation
frames, as tools/test.py does, and writes a file for each run into RESULTS. Then it
prints the tables of all files there are, and draws the IoU by height in the image.
Needs CamVid (tools/data/prepare_camvid.py). About 10 minutes of a core for a run, 30
with UperNet; to use two cores, run two groups side by side with OMP_NUM_THREADS=1.

Over 300 lines: the table of all runs and contrasts.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
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
CONFIGS = 'configs/queries'
PARTS = 10  # of the height of a frame
UNMASKED = (
    'model.backbone.attn_mask=chunked',
    'model.backbone.init_cfg.checkpoint='
    'models/illama_micro_cifar10_chunked_seed0.safetensors',
)
ALONE = ('custom_hooks=[]',)  # no draw of the chunk
ROWS = 'model.backbone.chunk_rows='


@dataclass
class Group:
    """Runs that differ in the seed alone.

    Attributes:
        title: for the tables.
        config: in configs/queries.
        options: that the training overrides.
        seeds: of the runs.
        evaluations: name -> further options of an evaluation; '' is the config's own.
    """

    title: str
    config: str
    options: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2, 3)
    evaluations: Mapping[str, Sequence[str]] = field(default_factory=lambda: {'': ()})


HEADS = {
    'upernet': ('UperNet', 'upernet_illama_micro_strict_camvid'),
    'linear': ('linear', 'illama_micro_linear_camvid'),
    'tokens': ('class tokens', 'illama_micro_queries_camvid'),
}
CHUNKS = {
    'rows 1': (f'{ROWS}1',),
    'rows 2': (f'{ROWS}2',),
    'rows 3': (f'{ROWS}3',),
    'rows 6': (f'{ROWS}6',),
    'rows all': (f'{ROWS}None',),
}
WHOLE = 'model.test_cfg.mode=whole'
STREAMED = 'rows 1, streamed'  # by StreamSegmentor, as rows arrive
LATENCY = 'illama_micro_chunked_camvid'


def own(rows: str) -> dict[str, Sequence[str]]:
    """Return the evaluations of a group of one latency."""
    found: dict[str, Sequence[str]] = {
        f'rows {rows}': (),
        f'rows {rows}, whole frames': (WHOLE,),
    }
    return found | ({STREAMED: (WHOLE,)} if rows == '1' else {})


GROUPS = {
    **{
        f'strict_{key}': Group(f'strict, {title}', config)
        for key, (title, config) in HEADS.items()
    },
    **{
        f'unmasked_{key}': Group(f'no causal mask, {title}', config, UNMASKED)
        for key, (title, config) in HEADS.items()
    },
    'drawn': Group(
        'drawn',
        LATENCY,
        evaluations={
            **CHUNKS,
            **{f'{name}, whole frames': (*o, WHOLE) for name, o in CHUNKS.items()},
            STREAMED: (f'{ROWS}1', WHOLE),
        },
    ),
    'rows_1': Group('1 row alone', LATENCY, (*ALONE, f'{ROWS}1'), evaluations=own('1')),
    'rows_all': Group('all rows alone', LATENCY, ALONE, evaluations=own('all')),
    'isolated': Group(
        'isolated bands of 1 row',
        LATENCY,
        (*ALONE, f'{ROWS}1', 'model.backbone.memory_rows=0'),
        evaluations=own('1'),
    ),
    'question_frozen': Group(
        'frozen', 'illama_micro_queries_camvid40_frozen', seeds=(0, 1, 2)
    ),
    'question_full': Group(
        'full', 'illama_micro_queries_camvid40_full', seeds=(0, 1, 2)
    ),
}
# Primary contrasts first: title, then group and evaluation of both sides.
CONTRASTS = [
    ('E1, primary', ('strict_tokens', ''), ('strict_linear', '')),
    ('E1', ('strict_tokens', ''), ('strict_upernet', '')),
    ('E1', ('strict_linear', ''), ('strict_upernet', '')),
    ('E1', ('unmasked_tokens', ''), ('unmasked_linear', '')),
    ('E1', ('unmasked_tokens', ''), ('unmasked_upernet', '')),
    ('E1', ('strict_linear', ''), ('unmasked_linear', '')),
    ('E1', ('strict_upernet', ''), ('unmasked_upernet', '')),
    ('E2, primary', ('drawn', 'rows 1'), ('isolated', 'rows 1')),
    ('E2', ('drawn', 'rows 1'), ('rows_1', 'rows 1')),
    ('E2', ('drawn', 'rows all'), ('rows_all', 'rows all')),
    ('E2', ('drawn', 'rows 1'), ('drawn', 'rows all')),
    *(
        ('E2', ('drawn', name), ('isolated', name))
        for name in ('rows 1, whole frames', STREAMED)
    ),
    ('E3, primary', ('question_frozen', ''), ('question_full', '')),
]


def train(name: str, seed: int, work_dir: Path) -> Path:
    """Train a run where that is not done; return its checkpoint."""
    group = GROUPS[name]
    found = sorted(work_dir.glob('iter_*.pth'))
    config = f'{CONFIGS}/{group.config}.py'
    last = load_config(ROOT / config).train_cfg.max_iters
    if found and found[-1].stem == f'iter_{last}':
        return found[-1]
    arguments = [
        f'randomness.seed={seed}',
        'default_hooks.checkpoint.save_best=None',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        *group.options,
    ]
    command = [sys.executable, 'tools/train.py', config, '--work-dir', str(work_dir)]
    command += ['--resume'] if found else []
    subprocess.run([*command, '--cfg-options', *arguments], check=True, cwd=ROOT)
    return work_dir / f'iter_{last}.pth'


def segment(model, image: np.ndarray, is_streamed: bool) -> np.ndarray:
    """Return the labels of a frame, (H, W)."""
    if not is_streamed:
        return predict(model, image)
    segmentor = StreamSegmentor(model, len(image))
    return np.concatenate([segmentor.push(image), segmentor.finish()])


def evaluate(
    config: str, options: Sequence[str], checkpoint: Path, is_streamed: bool
) -> dict:
    """Return the scores of a checkpoint, and the hits and unions by height."""
    cfg = load_config(ROOT / config, parse_cfg_options(list(options)))
    model = load_segmentor(cfg, checkpoint, fold=True)
    pairs = LabelledImages(cfg, 'val')
    classes = model.dataset_meta['classes']
    parts = [ConfusionMatrix(classes) for _ in range(PARTS)]
    for image, label, _ in tqdm(pairs, ' '.join(options) or config, unit='image'):
        predicted = segment(model, image, is_streamed)
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


def run(name: str, seed: int, work_dirs: Path, results: Path) -> None:
    """Train and evaluate a run, and write its file."""
    path = results / f'{name}_{seed}.json'
    if path.exists():
        return
    group = GROUPS[name]
    checkpoint = train(name, seed, work_dirs / name / str(seed))
    config = f'{CONFIGS}/{group.config}.py'
    numbers = dict(
        group=name,
        seed=seed,
        config=config,
        options=list(group.options),
        evaluations={
            title: evaluate(
                config, (*group.options, *options), checkpoint, title == STREAMED
            )
            for title, options in group.evaluations.items()
        },
    )
    write_whole(path, json.dumps(numbers) + '\n')


def scores(results: Path) -> dict[tuple[str, str], dict[int, dict]]:
    """(group, evaluation) -> seed -> scores, of all files there are."""
    found: dict[tuple[str, str], dict[int, dict]] = {}
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


def report(results: Path) -> str:
    """Return the tables in Markdown."""
    found = scores(results)
    lines = ['| run | evaluated | mIoU, % | each seed |', '|---|---|---|---|']
    for name, group in GROUPS.items():
        for title in group.evaluations:
            runs = found.get((name, title), {})
            values = [runs[seed]['mIoU'] for seed in sorted(runs)]
            if values:
                each = ', '.join(f'{value:.1f}' for value in values)
                lines.append(f'| {group.title} | {title} | {spread(values)} | {each} |')
    lines += ['', '| contrast | mIoU, points | each seed |', '|---|---|---|']
    for title, first, second in CONTRASTS:
        ours, theirs = found.get(first, {}), found.get(second, {})
        pairs = sorted(ours.keys() & theirs.keys())
        values = [ours[seed]['mIoU'] - theirs[seed]['mIoU'] for seed in pairs]
        if values:
            names = ' minus '.join(
                f'{GROUPS[name].title}{f" ({part})" if part else ""}'
                for name, part in (first, second)
            )
            each = ', '.join(f'{value:+.1f}' for value in values)
            lines.append(f'| {title}: {names} | {spread(values)} | {each} |')
    return '\n'.join(lines)


def draw(results: Path, path: Path) -> None:
    """Draw the mean IoU of the classes by height in the image, mean of the seeds."""
    found = scores(results)
    panels = {
        'strict': [(f'strict_{key}', '') for key in HEADS],
        'no causal mask': [(f'unmasked_{key}', '') for key in HEADS],
        'bands of 1 row': [
            ('drawn', 'rows 1'),
            ('rows_1', 'rows 1'),
            ('isolated', 'rows 1'),
        ],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 4), sharey=True)
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
            axis.plot(np.mean(curves, axis=0), height, label=GROUPS[key[0]].title)
        axis.set(title=title, xlabel='mean IoU of the classes there, %')
        if axis.lines:
            axis.legend(loc='lower right', fontsize=8)
    axes[0].set(ylabel='height in the image, 0 at the top')
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--groups', nargs='*', choices=list(GROUPS), default=list(GROUPS)
    )
    parser.add_argument('--seeds', nargs='+', type=int, help='of those of the study')
    parser.add_argument(
        '--work-dirs', type=Path, default=Path('work_dirs/decoder_study')
    )
    parser.add_argument('--results', type=Path, default=ROOT / 'docs/decoder_study')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    for name in args.groups:
        for seed in GROUPS[name].seeds:
            if args.seeds is None or seed in args.seeds:
                run(name, seed, args.work_dirs.resolve(), args.results)
    print(report(args.results))
    draw(args.results, args.results / 'rows.png')


if __name__ == '__main__':
    main(parse_args())
