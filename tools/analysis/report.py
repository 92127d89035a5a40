"""Report a run: python tools/analysis/report.py WORK_DIR

Prints the table of its validation set; writes result.json, predictions.png, curves.png.
"""

import argparse
import sys

from illama_seg.apis import report_run


def main() -> None:
    parser = argparse.ArgumentParser(description='Evaluate and draw a finished run')
    parser.add_argument('run', help='work dir of tools/train.py')
    parser.add_argument('--num-images', type=int, default=6, help='rows of the picture')
    parser.add_argument(
        '--baselines',
        action='store_true',
        help='score colour alone and place alone beside the model',
    )
    args = parser.parse_args()
    try:
        _, table = report_run(args.run, args.num_images, args.baselines)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)
    for name in ('result.json', 'predictions.png', 'curves.png'):
        print(f'{args.run}/{name}')


if __name__ == '__main__':
    main()
