"""Compare models under one recipe: python tools/analysis/leaderboard.py CONFIG...

Trains each config with the seeds 0 to N - 1, one run for each core (or GPU), and
evaluates the last checkpoints. What is finished is kept: the same command goes on
after a stop, and trains only what is missing after more configs or seeds were added.
Prints a table: mIoU, paired difference to the first config, cost. Writes it as
leaderboard.json, .png and .html, with curves and classes beside it.
"""

import argparse
from pathlib import Path

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='file, or name')
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each config')
    parser.add_argument(
        '--dataset',
        choices=('demo', 'camvid', 'ade20k'),
        help='train every model under the recipe of this data set: data, crop, '
        'schedule and evaluation; else the configs have to agree in them',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/leaderboard'))
    parser.add_argument('--workers', type=int, help='trainings at a time')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of every config, such as train_cfg.max_iters=400',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.reports import write_board_page
    from illama_seg.studies import run_leaderboard

    table = run_leaderboard(
        args.configs,
        args.out,
        seeds=args.seeds,
        dataset=args.dataset,
        workers=args.workers,
        cfg_options=parse_cfg_options(args.cfg_options),
    )
    print(table)
    print(write_board_page(args.out))


if __name__ == '__main__':
    run(main, parse_args())
