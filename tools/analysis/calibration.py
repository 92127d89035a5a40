"""Confidence against accuracy: python tools/analysis/calibration.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG; for a classification also a model of timm: timm:NAME
(downloads the weights), timm:NAME=FILE or timm:NAME=random. Prints ECE, adaptive ECE,
MCE, NLL and Brier score, before and after temperature scaling; writes calibration.json,
calibration.png (reliability diagrams) and calibration_per_class.csv.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('sources', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument('--out', type=Path, help='results folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='calibration.json of earlier calls, to show their models too',
    )
    parser.add_argument(
        '--num-bins', '--bins', type=int, default=15, help='bins of confidence'
    )
    parser.add_argument(
        '--held-out',
        type=float,
        default=0.5,
        help='share of the images that the temperature is fitted to',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the draw of these images'
    )
    parser.add_argument('--batch-size', type=int, help="by default the config's")
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as test_dataloader.dataset.data_root=DIR',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_calibration

    args.cfg_options = parse_cfg_options(args.cfg_options)
    _, table = measure_calibration(**vars(args))
    print(table)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.errors import run

    run(main, args)
