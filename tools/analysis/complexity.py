"""Table 2, formulas and counts: python tools/analysis/complexity.py [--sizes ...]

Counts one self-attention with its projections, for any width and number of tokens;
tools/analysis/benchmark.py counts a whole model. Prints a table and writes
complexity.json.
"""

import argparse
from pathlib import Path

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--dims',
        nargs='+',
        type=int,
        help='channels of a token; by default those of Tiny to Large',
    )
    parser.add_argument(
        '--sizes', nargs='*', type=int, default=[224, 384], help='sides of images'
    )
    parser.add_argument(
        '--tokens', nargs='+', type=int, default=[], help='further numbers of tokens'
    )
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/complexity'))
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import compare_complexity

    print(compare_complexity(**vars(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
