"""Table 2, closed forms and counts: python tools/analysis/complexity.py [--sizes ...]

Of one self-attention with its projections, for any width and number of tokens; a whole
model is counted by tools/analysis/benchmark.py. Prints a table, writes complexity.json.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Complexity of one self-attention')
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
        '--tokens', nargs='+', type=int, default=[], help='numbers of tokens, further'
    )
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/complexity'))
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.studies import compare_complexity

    try:
        _, table = compare_complexity(
            args.dims, args.sizes, args.tokens, args.patch_size, args.out
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)


if __name__ == '__main__':
    main()
