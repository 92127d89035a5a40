"""Segment images: python tools/infer.py CONFIG CHECKPOINT IMAGE_OR_FOLDER... --out DIR

Writes DIR/overlay/NAME.jpg (painted, with the classes' names), DIR/labels/NAME.png (the
data set's own label ids, one channel) and DIR/summary.json (share of each class).
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from illama_seg.apis import (
    CfgOptions,
    add_legend,
    find_images,
    load_config,
    load_segmentor,
    overlay,
    predict,
    read_image,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('inputs', nargs='+', help='images or folders of images')
    parser.add_argument('--out', default='outputs', help='folder for the results')
    parser.add_argument(
        '--device', help="'cpu', 'cuda:0', ...; a GPU where there is one"
    )
    parser.add_argument('--opacity', type=float, default=0.5, help='of the overlay')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptions,
        metavar='KEY=VALUE',
        help='override settings, such as model.test_cfg.mode=whole',
    )
    return parser.parse_args()


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise ValueError(f'{path} cannot be written; name another folder with --out')


def main() -> None:
    args = parse_args()
    try:
        images = find_images(args.inputs)
        cfg = load_config(args.config, args.cfg_options)
        model = load_segmentor(cfg, args.checkpoint, args.device)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f'error: {error}')
    classes, palette = model.dataset_meta['classes'], model.dataset_meta['palette']
    # Label ids as the data set's annotations have them: ADE20K counts from 1.
    first = int(bool(model.dataset_meta.get('reduce_zero_label')))
    summary, failures, out = {}, [], Path(args.out)
    for path, name in tqdm(images, unit='image'):
        try:
            image = read_image(path)
            labels = predict(model, image)
            painted = overlay(image, labels, palette, args.opacity)
            write(
                out / 'overlay' / name.with_suffix('.jpg'),
                add_legend(painted, labels, classes, palette),
            )
            write(out / 'labels' / name.with_suffix('.png'), labels + first)
        except (ValueError, OSError) as error:
            named = str(path) in str(error)
            failures.append(str(error) if named else f'{path}: {error}')
            continue
        numbers, counts = np.unique(labels, return_counts=True)
        summary[str(name)] = {
            classes[number]: round(count / labels.size, 4)
            for number, count in sorted(
                zip(numbers, counts, strict=True), key=lambda pair: -pair[1]
            )
        }
    if summary:
        (out / 'summary.json').write_text(json.dumps(summary, indent=1))
        print(f'{len(summary)} images segmented: {out}/overlay, {out}/labels')
    if failures:
        sys.exit('error: not segmented:\n' + '\n'.join(failures))


if __name__ == '__main__':
    main()
