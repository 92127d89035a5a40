"""Segment or classify images with an exported file: no torch is needed.

    python -m illama_seg.deploy FILE IMAGE_OR_FOLDER... --out DIR

A segmentation writes DIR/overlay/NAME.jpg, DIR/labels/NAME.png (one channel, the label
ids of the data set) and DIR/summary.json (share of each class). A classification writes
DIR/summary.json (the five best classes of each image).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from illama_seg.deploy.runtime import ExportedModel
from illama_seg.errors import UserError
from illama_seg.files import write_whole
from illama_seg.images import (
    JPEG_SIDE,
    UnwritableError,
    find_images,
    read_bgr,
    write_image,
)
from illama_seg.visualization.overlays import add_legend, overlay
from illama_seg.windows import BLENDS


def parse_args(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser('python -m illama_seg.deploy', description=__doc__)
    parser.add_argument('file', type=Path, help='.onnx or .xml of tools/export.py')
    parser.add_argument('inputs', nargs='+', help='images, or folders of them')
    parser.add_argument('--out', type=Path, default=Path('outputs'))
    parser.add_argument('--opacity', type=float, default=0.5, help='0 to 1')
    parser.add_argument('--full-size', action='store_true', help='no resizing first')
    parser.add_argument('--blend', choices=BLENDS, default='mean')
    return parser.parse_args(words)


def main(args: argparse.Namespace) -> None:
    """Run the file on all images; a bad image stops no other."""
    if not 0 <= args.opacity <= 1:
        raise UserError(f'--opacity {args.opacity}: expected a number in [0, 1]')
    model = ExportedModel(args.file)
    images = find_images(args.inputs, skip=args.out)
    summary: dict[str, dict[str, float]] = {}
    failures, start = [], time.perf_counter()
    for number, (path, name) in enumerate(images, 1):
        try:
            image = read_bgr(path)
            if model.sidecar.task == 'segmentation':
                summary[str(name)] = _segment(model, image, name, args)
            else:
                summary[str(name)] = _classify(model, image)
        except UnwritableError:
            raise
        except (UserError, OSError, cv2.error) as error:
            text = str(error).strip().splitlines()[0]
            failures.append(text if str(path) in text else f'{path}: {text}')
        seconds = time.perf_counter() - start
        sys.stderr.write(f'\r{number} of {len(images)} images, {seconds:.1f} s')
    sys.stderr.write('\n')
    write_whole(args.out / 'summary.json', json.dumps(summary, indent=1))
    sys.stdout.write(f'{len(summary)} images: {args.out}\n')
    if failures:
        raise UserError('not done:\n' + '\n'.join(failures))


def _segment(
    model: ExportedModel, image: np.ndarray, name: Path, args: Any
) -> dict[str, float]:
    sidecar = model.sidecar
    labels = model.segment(image, args.full_size, args.blend)
    ids = np.asarray(sidecar.ids, np.uint8)
    write_image(args.out / 'labels' / name.with_suffix('.png'), ids[labels])
    painted = overlay(image, labels, sidecar.palette, args.opacity)
    painted = add_legend(painted, labels, sidecar.classes, sidecar.palette)
    suffix = '.jpg' if max(painted.shape) <= JPEG_SIDE else '.png'
    write_image(args.out / 'overlay' / name.with_suffix(suffix), painted)
    shares = np.bincount(labels.ravel(), minlength=len(ids)) / labels.size
    return _largest(shares, sidecar.classes, len(ids))


def _classify(model: ExportedModel, image: np.ndarray) -> dict[str, float]:
    return _largest(model.classify(image), model.sidecar.classes, 5)


def _largest(values: np.ndarray, names: list[str], count: int) -> dict[str, float]:
    best = np.argsort(-values)[:count]
    return {names[i]: round(float(values[i]), 4) for i in best if values[i] > 0}


if __name__ == '__main__':
    try:
        main(parse_args())
    except UserError as error:
        sys.stderr.write(f'error: {error}\n')
        sys.exit(2)
