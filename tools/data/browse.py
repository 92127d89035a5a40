"""Look at augmented samples: python tools/data/browse.py CONFIG [--split S] ..."""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument(
        '--out', help='image file; by default work_dirs/CONFIG/browse_SPLIT.png'
    )
    parser.add_argument('--num-images', type=int, default=4, help='number of rows')
    parser.add_argument('--draws', type=int, default=3, help='samples of each image')
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
    from illama_seg.reports import browse_dataset

    cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
    print(
        browse_dataset(
            cfg,
            args.split,
            out=args.out,
            num_images=args.num_images,
            draws=args.draws,
            seed=args.seed,
        )
    )


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
