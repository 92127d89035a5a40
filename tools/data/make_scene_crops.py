"""Make a classification data set of crops of procedural scenes.

Writes FOLDER/{train,val}/CLASS/*.jpg, the layout of ImageNet.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/scene_crops', help='folder to write')
    parser.add_argument(
        '--num-train', type=int, default=300, help='training crops of each class'
    )
    parser.add_argument(
        '--num-val', type=int, default=30, help='validation crops of each class'
    )
    parser.add_argument('--side', type=int, default=64, help='side in pixels')
    parser.add_argument(
        '--seed', type=int, default=1, help='seed of the scenes; the demo has 0'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.datasets.scenes import write_scene_crops

    made = write_scene_crops(
        args.out,
        num_train=args.num_train,
        num_val=args.num_val,
        side=args.side,
        seed=args.seed,
    )
    train, val = made['counts']['train'], made['counts']['val']
    print(
        f'{args.out}: {train} + {val} crops of each class, {made["side"]} x '
        f'{made["side"]} pixels, from {sum(made["scenes"].values())} scenes'
    )


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
