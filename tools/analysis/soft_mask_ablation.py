"""Table 9's soft mask ablation: python tools/analysis/soft_mask_ablation.py CONFIG

Trains the config without soft mask and with it, and the plain ViT of the config beside
it, one after the other into OUT/{vit,none,linear,...}/SEED. Prints a table; writes
compare.png and compare.json. Skips finished runs and resumes interrupted ones; to use
several GPUs, train into these folders by tools/dist_train.sh first.
"""

import argparse
import sys
from pathlib import Path

from arguments import add_config, keywords, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser, 'train_cfg.max_epochs=10')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/soft_mask'))
    parser.add_argument(
        '--masks',
        nargs='+',
        help="none, constant, linear; by default none and the config's",
    )
    parser.add_argument(
        '--num-seeds', '--seeds', type=int, default=1, help='runs of each group'
    )
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import run_soft_mask_ablation

    try:
        print(run_soft_mask_ablation(**keywords(args)))
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command continues from the last checkpoint')
    for name in ('compare.png', 'compare.json'):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    run(main, parse_args())
