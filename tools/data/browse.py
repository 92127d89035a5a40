"""Look at augmented samples: python tools/data/browse.py CONFIG [--split S] ..."""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Draw samples beside what the augmentation makes of them'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument(
        '--out', help='picture; by default work_dirs/CONFIG/browse_SPLIT.png'
    )
    parser.add_argument('--num-images', type=int, default=4, help='rows')
    parser.add_argument('--draws', type=int, default=3, help='of each image')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as train_dataloader.dataset.data_root=DIR',
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import load_config, parse_cfg_options
    from illama_seg.reports import browse_dataset

    try:
        cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
        picture = browse_dataset(
            cfg, args.split, args.out, args.num_images, args.draws, args.seed
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(picture)


if __name__ == '__main__':
    main()
