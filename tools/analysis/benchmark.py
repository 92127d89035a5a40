"""Time a model and count its cost: python tools/analysis/benchmark.py CONFIG

Prints tables and writes benchmark.json: latency and throughput at each batch size, peak
memory, parameters, and multiply-accumulates with and without what papers leave out.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
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
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument('--out', type=Path, help='JSON file; else in the work dir')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.backbone.img_size=224',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import run_benchmark

    args.shape = args.shape and tuple(args.shape)
    args.cfg_options = parse_cfg_options(args.cfg_options)
    _, tables = run_benchmark(**vars(args))
    print(tables)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.errors import run

    run(main, args)
