"""Report a run: python tools/analysis/report.py WORK_DIR

Prints the table of its validation set; writes result.json, predictions.png, curves.png.
Then collects all measurements of the run in one page, report.html.
"""

import argparse
from pathlib import Path

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('run', help='work dir of tools/train.py')
    parser.add_argument(
        '--num-images', type=int, default=6, help='rows of predictions.png'
    )
    parser.add_argument(
        '--baselines',
        action='store_true',
        help='score colour alone and position alone beside the model',
    )
    parser.add_argument(
        '--gather', action='store_true', help='run no model, write the page only'
    )
    parser.add_argument(
        '--also',
        nargs='+',
        default=[],
        metavar='DIR',
        help="further folders of measurements for the page, beside the run's own",
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.reports import report_run, write_page

    if not args.gather:
        print(report_run(args.run, args.num_images, args.baselines)[1])
    page = write_page(args.run, args.also)
    for name in ('result.json', 'predictions.png', 'curves.png'):
        if not args.gather and Path(args.run, name).is_file():
            print(f'{args.run}/{name}')
    print(page)


if __name__ == '__main__':
    run(main, parse_args())
