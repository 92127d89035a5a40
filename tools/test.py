"""Test a model: python tools/test.py CONFIG CHECKPOINT [--tta] [--out D] ...

Beside the metrics a segmentor's work dir gets scores.json (with the benchmark's final
score), per_class.csv, confusion.png and its numbers, confusion.json.
"""

import argparse
import os
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder for the log and the metrics as JSON')
    parser.add_argument('--out', help='folder for the predictions as label PNGs')
    parser.add_argument('--show-dir', help='folder for the predictions as pictures')
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    parser.add_argument('--tta', action='store_true', help='multi-scale and flip test')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.test_cfg.mode=whole',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import (
        build_tester,
        load_config,
        mistakes_explained,
        parse_cfg_options,
    )

    try:
        cfg = load_config(
            args.config,
            parse_cfg_options(args.cfg_options),
            args.work_dir,
            args.launcher,
        )
        if args.work_dir is None:  # the training run keeps its own copy of the config
            cfg.work_dir += '/test'
        runner = build_tester(
            cfg, args.checkpoint, args.tta, args.out, args.show_dir, args.amp
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    with mistakes_explained(cfg):
        runner.test()


if __name__ == '__main__':
    main()
