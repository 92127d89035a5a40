"""Loss around the weights: python tools/analysis/loss_landscape.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG; for a classification also 'random' or a model of timm:
timm:NAME (downloads the weights), timm:NAME=FILE or timm:NAME=random. Takes
filter-normalised random directions (arXiv 1712.09913). Prints a table; writes
loss_landscape.json and loss_landscape.png, and each point as soon as it is computed:
the same command continues an interrupted one.
"""

import argparse

from arguments import keywords, run, study_parser


def parse_args() -> argparse.Namespace:
    parser = study_parser(__doc__, 'loss_landscape.json', 'train')
    parser.add_argument(
        '--points', type=int, default=21, help='points per side, an odd number'
    )
    parser.add_argument(
        '--radius',
        type=float,
        default=1.0,
        help="half a side, in lengths of the weights' filters",
    )
    parser.add_argument(
        '--num-images', type=int, default=256, help='number of images of the split'
    )
    parser.add_argument('--split', choices=['train', 'test'], default='train')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the directions and of the images'
    )
    parser.add_argument(
        '--restart', action='store_true', help='delete the points of an earlier call'
    )
    parser.add_argument('--batch-size', type=int, help="by default the config's")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import measure_loss_landscape

    print(measure_loss_landscape(**keywords(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
