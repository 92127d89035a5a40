"""Rotary positions at sizes that no training has seen: P0 of docs/dense_gap.md.

    python benchmarks/positions.py [--num-images N] [--out DIR]

The micro classifiers of models/, trained on CIFAR-10 images enlarged to 112x112 pixels,
at other sizes, with each kind of positions; nothing is trained. Prints the accuracy on
the test images and, image by image against 'raster', how many more are right. Writes
positions.json. Needs CIFAR-10 (docs/pretraining.md). About an hour of a core.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS, init_default_scope
from tqdm import tqdm

from illama_seg.apis import get_model
from illama_seg.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
FILES = ('linear', 'strict', 'chunked')  # masks of models/
KINDS = ('raster', 'scaled', 'neighbour')
SIZES = ((112, 112), (224, 224), (112, 224), (224, 112), (160, 240))
BATCH = 50


def build(mask: str, kind: str) -> torch.nn.Module:
    """Return a classifier of models/ with a kind of positions."""
    options = {'model.backbone.rotary_grid': kind}
    if kind != 'raster':
        options['model.backbone.rotary_img_size'] = 112
    if mask != 'linear':
        options['model.backbone.attn_mask'] = mask
    path = ROOT / f'models/illama_micro_cifar10_{mask}_seed0.safetensors'
    return get_model('illama_micro_cifar10', path, cfg_options=options)


@torch.inference_mode()
def is_right(model: torch.nn.Module, size: tuple[int, int], count: int) -> np.ndarray:
    """Return whether each test image is classified rightly, (num_images,) bool."""
    settings = model.cfg.val_dataloader.dataset
    pipeline = [dict(step) for step in settings.pipeline]
    (step,) = (step for step in pipeline if step['type'] == 'ClsTransform')
    step['input_size'] = (3, *size)
    init_default_scope('mmseg')
    data = DATASETS.build(dict(settings, pipeline=pipeline))
    numbers = range(min(count, len(data)))
    found = []
    for first in range(0, len(numbers), BATCH):
        samples = [data[i] for i in numbers[first : first + BATCH]]
        batch = model.data_preprocessor(
            dict(
                inputs=[sample['inputs'] for sample in samples],
                data_samples=[sample['data_samples'] for sample in samples],
            )
        )
        logits = model(batch['inputs'])
        labels = [int(sample['data_samples'].gt_label) for sample in samples]
        found.append(logits.argmax(1).numpy() == np.array(labels))
    return np.concatenate(found)


def paired(found: np.ndarray, other: np.ndarray) -> dict:
    """Return the difference of two accuracies in points, with a 95 % interval.

    The images where only one is right decide it.
    """
    ours, theirs = int((found & ~other).sum()), int((other & ~found).sum())
    count = len(found)
    mean = (ours - theirs) / count
    error = math.sqrt(max(ours + theirs - count * mean**2, 0.0)) / count
    return dict(
        difference=100 * mean,
        interval=[100 * (mean - 1.96 * error), 100 * (mean + 1.96 * error)],
        only_this=ours,
        only_raster=theirs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--num-images', type=int, default=5000)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/dense_gap')
    args = parser.parse_args()
    rows = []
    total = len(FILES) * len(KINDS) * len(SIZES)
    with tqdm(total=total, unit='evaluation') as progress:
        for mask in FILES:
            raster = {}
            for kind in KINDS:
                model = build(mask, kind)
                for size in SIZES:
                    right = is_right(model, size, args.num_images)
                    raster.setdefault(size, right)
                    row = dict(mask=mask, kind=kind, size=size, images=len(right))
                    row |= dict(accuracy=100 * float(right.mean()))
                    rows.append(row | paired(right, raster[size]))
                    progress.update()
    args.out.mkdir(parents=True, exist_ok=True)
    write_whole(args.out / 'positions.json', json.dumps(dict(rows=rows), indent=1))
    print(table(rows))


def table(rows: list[dict]) -> str:
    """Return the rows in Markdown, a line for each mask and kind."""
    sizes = list(dict.fromkeys(tuple(row['size']) for row in rows))
    heads = ['mask', 'positions', *(f'{h}x{w}' for h, w in sizes)]
    lines = [f'| {" | ".join(heads)} |', '|' + '---|' * len(heads)]
    for mask, kind in dict.fromkeys((row['mask'], row['kind']) for row in rows):
        cells = []
        for size in sizes:
            (row,) = (
                r
                for r in rows
                if (r['mask'], r['kind'], tuple(r['size'])) == (mask, kind, size)
            )
            text = f'{row["accuracy"]:.1f}'
            if kind != 'raster':
                low, high = row['interval']
                text += f' ({row["difference"]:+.1f}; {low:+.1f} to {high:+.1f})'
            cells.append(text)
        lines.append(f'| {mask} | {kind} | {" | ".join(cells)} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
