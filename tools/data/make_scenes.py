"""Make the procedural scenes data set, in the layout of ADEChallengeData2016."""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/scenes', help='folder to write')
    parser.add_argument('--num-train', type=int, default=1000)
    parser.add_argument('--num-val', type=int, default=60)
    parser.add_argument(
        '--size', type=int, nargs=2, default=(160, 208), metavar=('H', 'W')
    )
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.datasets.scenes import write_scenes

    made = write_scenes(
        args.out,
        num_train=args.num_train,
        num_val=args.num_val,
        size=tuple(args.size),
        seed=args.seed,
    )
    height, width = made['size']
    print(
        f'{args.out}: {made["counts"]["training"]} training and '
        f'{made["counts"]["validation"]} validation scenes of {height} x {width} '
        f'pixels, seed {made["seed"]}'
    )
    print(f'{"class":<12}{"id":>4}{"pixels":>13}{"scenes":>13}')
    for name, share in made['pixel_share'].items():
        scenes = made['scene_share'][name]
        print(f'{name:<12}{made["ids"].get(name, 0):>4}{share:>13.1%}{scenes:>13.0%}')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
