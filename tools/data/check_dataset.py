"""Check a config's data: python tools/data/check_dataset.py CONFIG [--out D] ..."""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Read every image and annotation of a config before training; '
        'the exit status is 1 if a file has a fault'
    )
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument(
        '--out',
        help='folder for report.json and contact_sheet.png; by default '
        'work_dirs/CONFIG/data_check',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=12,
        help='images on the contact sheet; 0 writes none',
    )
    parser.add_argument('--workers', type=int, help='processes that read the files')
    parser.add_argument('--seed', type=int, default=0, help='seed of the augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as train_dataloader.dataset.data_root=DIR',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import load_config, parse_cfg_options
    from illama_seg.reports import check_dataset

    cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
    report, text = check_dataset(
        cfg,
        args.out,
        num_images=args.num_images,
        workers=args.workers,
        seed=args.seed,
    )
    print(text)
    sys.exit(bool(report['faults']))


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
