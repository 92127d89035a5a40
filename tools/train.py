"""Train a model: python tools/train.py CONFIG [--work-dir D] [--resume] [--amp] ..."""

import argparse
import os
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Parser that knows what a file behind --resume is meant to do."""

    def error(self, message: str) -> NoReturn:
        if 'unrecognized arguments' in message and '--resume' in sys.argv:
            message += (
                '; --resume takes no file: to go on from one, write --resume '
                '--cfg-options load_from=FILE'
            )
        super().error(message)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        action='store_true',
        help='continue from the newest checkpoint in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch',
    )
    parser.add_argument(
        '--skip-corrupt',
        action='store_true',
        help='skip and count images that cannot be read, up to one in a hundred',
    )
    parser.add_argument(
        '--tensorboard', action='store_true', help='log for TensorBoard too'
    )
    parser.add_argument(
        '--wandb',
        action='store_true',
        help='log for Weights & Biases too; offline, unless you are logged in',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as train_dataloader.batch_size=8',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import (
        add_tensorboard,
        add_wandb,
        build_trainer,
        load_config,
        parse_cfg_options,
    )

    options = parse_cfg_options(args.cfg_options)
    cfg = load_config(
        args.config, options, work_dir=args.work_dir, launcher=args.launcher
    )
    if args.tensorboard:
        add_tensorboard(cfg)
    if args.wandb:
        add_wandb(cfg)
    runner = build_trainer(
        cfg,
        amp=args.amp,
        resume=args.resume,
        auto_scale_lr=args.auto_scale_lr,
        skip_corrupt=args.skip_corrupt,
    )
    runner.train()


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
