"""Compare training runs: python tools/analysis/compare.py RUN RUN... --out DIR

RUN is a work dir of tools/train.py, or a folder of work dirs that differ in their
seeds. Prints a table; writes compare.png and compare.json. For segmentations it also
runs each run's last checkpoint: differences by class (classes.png, classes.json), and
the images with the largest differences, the worst and the best (images.png,
images.json).
"""

import argparse
from pathlib import Path

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='work dir, or folder of work dirs'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument(
        '--num-images',
        '--images',
        type=int,
        default=2,
        help='images of each kind to draw; 0 runs no model, and compares classes '
        'where tools/test.py left RUN/test/scores.json',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import compare_images, compare_runs

    print(compare_runs(args.runs, args.out))
    text, files = compare_images(args.runs, args.out, num_images=args.num_images)
    if text:
        print(text)
    for name in ('compare.png', 'compare.json', *files):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    run(main, parse_args())
