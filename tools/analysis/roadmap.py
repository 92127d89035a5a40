"""Train the roadmap from ViT to iLLaMA in micro size: python tools/analysis/roadmap.py

Trains every step of Table 17 and three schedules of the soft mask on handwritten
digits, most of a minute each, as many at once as there are cores. Prints the table;
writes roadmap.json, roadmap.png, soft_mask.png. The same command skips finished runs.
"""

import argparse
import sys
from pathlib import Path

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/roadmap'))
    parser.add_argument(
        '--num-seeds', '--seeds', type=int, default=3, help='runs of each step'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import run_roadmap

    configs = Path(__file__).parents[2] / 'configs'
    recipe = configs / 'pretrain' / 'illama_micro_digits.py'
    try:
        print(run_roadmap(recipe, configs / 'ablation', **vars(args)))
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command continues after the last finished run')
    for name in ('roadmap.json', 'roadmap.png', 'soft_mask.png'):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    run(main, parse_args())
