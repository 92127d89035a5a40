"""Runs side by side: python tools/analysis/compare.py RUN RUN... --out DIR

RUN is a work dir of tools/train.py, or a folder of them that differ in their seeds.
Prints a table; writes compare.png and compare.json. Of segmentations also, from each
run's last checkpoint, the differences by class (classes.png, classes.json), and the
images where one is better, the worst and the best (images.png, images.json).
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare training runs')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='work dir, or seeds of it'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compare'))
    parser.add_argument(
        '--images',
        type=int,
        default=2,
        help='images of each kind to draw; 0 predicts nothing, and compares classes '
        'where tools/test.py left RUN/test/scores.json',
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.studies import compare_images, compare_runs

    try:
        print(compare_runs(args.runs, args.out))
        text, files = compare_images(args.runs, args.out, args.images)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    if text:
        print(text)
    for name in ('compare.png', 'compare.json', *files):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    main()
