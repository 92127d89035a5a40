"""Test a model: python tools/test.py CONFIG CHECKPOINT [--tta] [--out D] ...

Prints the metrics; for a segmentor it also writes scores.json (with the benchmark's
final score), per_class.csv, confusion.png and confusion.json into the work dir.
"""

import argparse
import os


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--work-dir', help='folder for the log and the metrics as JSON')
    parser.add_argument('--out', help='folder for the predictions as label PNGs')
    parser.add_argument('--show-dir', help='folder for the predictions over the images')
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='score the label PNGs that --out has already of this test, and go on',
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


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import build_tester, load_config, parse_cfg_options

    options = parse_cfg_options(args.cfg_options)
    cfg = load_config(
        args.config, options, work_dir=args.work_dir, launcher=args.launcher
    )
    if args.work_dir is None:  # the training run keeps its own copy of the config
        cfg.work_dir += '/test'
    runner = build_tester(
        cfg,
        args.checkpoint,
        tta=args.tta,
        out=args.out,
        show_dir=args.show_dir,
        amp=args.amp,
        resume=args.resume,
    )
    runner.test()


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
