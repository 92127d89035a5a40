"""Runs side by side: python tools/analysis/compare.py RUN RUN... --out DIR

RUN is a work dir of tools/train.py, or a folder of them that differ in their seeds.
Prints a table; writes compare.png and compare.json.
"""

import argparse
import sys
from pathlib import Path

from illama_seg.apis import compare_runs


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare training runs')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN', help='work dir, or seeds of it'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/compare'))
    args = parser.parse_args()
    try:
        table = compare_runs(args.runs, args.out)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)
    for name in ('compare.png', 'compare.json'):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    main()
