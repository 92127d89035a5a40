"""Cut a classification set out of procedural scenes: what is in this crop?

Writes FOLDER/{train,val}/CLASS/*.jpg, the layout of ImageNet.
"""

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/scene_crops', help='folder to write')
    parser.add_argument('--num-train', type=int, default=300, help='of each class')
    parser.add_argument('--num-val', type=int, default=30, help='of each class')
    parser.add_argument('--side', type=int, default=64, help='pixels')
    parser.add_argument('--seed', type=int, default=1, help="the demo's scenes have 0")
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.datasets.scenes import write_scene_crops

    try:
        made = write_scene_crops(
            args.out, args.num_train, args.num_val, args.side, args.seed
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}') from None
    train, val = made['counts']['train'], made['counts']['val']
    print(
        f'{args.out}: {train} + {val} crops of each class, {made["side"]} x '
        f'{made["side"]} pixels, from {sum(made["scenes"].values())} scenes'
    )


if __name__ == '__main__':
    main()
