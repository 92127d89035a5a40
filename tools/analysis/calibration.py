"""Right as often as sure? python tools/analysis/calibration.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG. For a classification it may also be timm's model by
name: timm:NAME (weights downloaded), timm:NAME=FILE or timm:NAME=random. Prints ECE,
adaptive ECE, MCE, NLL and Brier's score, before and after temperature scaling; writes
calibration.json, calibration.png (reliability diagrams) and calibration_per_class.csv.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Calibration of classifiers and segmentors'
    )
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('models', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument('--out', type=Path, help='folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='calibration.json of earlier calls, to show their models too',
    )
    parser.add_argument('--bins', type=int, default=15, help='bins of confidence')
    parser.add_argument(
        '--held-out',
        type=float,
        default=0.5,
        help='share of the images that the temperature is fitted to',
    )
    parser.add_argument('--seed', type=int, default=0, help='which ones')
    parser.add_argument('--batch-size', type=int, help="else the config's")
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_calibration

    try:
        _, table = measure_calibration(
            args.config,
            args.models,
            args.out,
            args.beside,
            args.bins,
            args.held_out,
            args.seed,
            args.batch_size,
            args.device,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)


if __name__ == '__main__':
    main()
