"""Confidence against accuracy: python tools/analysis/calibration.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG; for a classification also a model of timm: timm:NAME
(downloads the weights), timm:NAME=FILE or timm:NAME=random. Prints ECE, adaptive ECE,
MCE, NLL and Brier score, before and after temperature scaling; writes calibration.json,
calibration.png (reliability diagrams) and calibration_per_class.csv.
"""

import argparse

from arguments import keywords, run, study_parser


def parse_args() -> argparse.Namespace:
    parser = study_parser(__doc__, 'calibration.json')
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
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import measure_calibration

    print(measure_calibration(**keywords(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
