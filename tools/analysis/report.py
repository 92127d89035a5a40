"""Report a run: python tools/analysis/report.py WORK_DIR

Prints the table of its validation set; writes result.json, predictions.png, curves.png.
Then gathers all that was measured of the run into one page, report.html.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Evaluate and draw a finished run')
    parser.add_argument('run', help='work dir of tools/train.py')
    parser.add_argument('--num-images', type=int, default=6, help='rows of the picture')
    parser.add_argument(
        '--baselines',
        action='store_true',
        help='score colour alone and place alone beside the model',
    )
    parser.add_argument(
        '--gather', action='store_true', help='evaluate nothing, write the page only'
    )
    parser.add_argument(
        '--also',
        nargs='+',
        default=[],
        metavar='DIR',
        help="further folders of measurements for the page, beside the run's own",
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.reports import report_run, write_page

    try:
        if not args.gather:
            print(report_run(args.run, args.num_images, args.baselines)[1])
        page = write_page(args.run, args.also)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    for name in ('result.json', 'predictions.png', 'curves.png'):
        if not args.gather and Path(args.run, name).is_file():
            print(f'{args.run}/{name}')
    print(page)


if __name__ == '__main__':
    main()
