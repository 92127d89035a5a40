"""Time a model and count its cost: python tools/analysis/benchmark.py CONFIG

Prints tables and writes benchmark.json: latency and throughput at each batch size, peak
memory, parameters, and multiply-accumulates with and without what papers leave out.
"""

import argparse
from pathlib import Path

from arguments import add_config, add_device, keywords, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser, 'model.backbone.img_size=224')
    parser.add_argument(
        'checkpoint', nargs='?', help='weights to load; else random ones'
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='size of the images; by default that of the training crops',
    )
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1])
    parser.add_argument('--repeat', type=int, default=10, help='passes to time')
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    add_device(parser)
    parser.add_argument('--out', type=Path, help='JSON file; else in the work dir')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import run_benchmark

    args.shape = args.shape and tuple(args.shape)
    print(run_benchmark(**keywords(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
