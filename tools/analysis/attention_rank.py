"""Rank of attention maps: python tools/analysis/attention_rank.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG, 'random' for the weights that a training starts from,
or a model of timm: timm:NAME (downloads the weights), timm:NAME=FILE, timm:NAME=random.
Prints how many singular values make 0.8 of their sum, before and after the mask, by
layer and head; writes attention_rank.json and attention_rank.png (Figures 4 and 11).
"""

import argparse

from arguments import keywords, run, study_parser


def parse_args() -> argparse.Namespace:
    parser = study_parser(__doc__, 'attention_rank.json')
    parser.add_argument(
        '--images',
        nargs='+',
        default=[],
        help='image files and folders; by default the test data',
    )
    parser.add_argument(
        '--num-images', type=int, default=30, help='number of images to use'
    )
    parser.add_argument(
        '--share', type=float, default=0.8, help='share of the sum of singular values'
    )
    parser.add_argument(
        '--layers', nargs='+', type=int, default=[], help='layers to show; else four'
    )
    parser.add_argument('--batch-size', type=int, default=8)
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import measure_attention_rank

    print(measure_attention_rank(**keywords(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
