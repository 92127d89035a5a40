"""Rank of attention maps: python tools/analysis/attention_rank.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG, 'random' for the weights that a training starts from,
or a model of timm: timm:NAME (downloads the weights), timm:NAME=FILE, timm:NAME=random.
Prints how many singular values make 0.8 of their sum, before and after the mask, by
layer and head; writes attention_rank.json and attention_rank.png (Figures 4 and 11).
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('sources', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument(
        '--images',
        nargs='+',
        default=[],
        help='image files and folders; by default the test data',
    )
    parser.add_argument(
        '--num-images', type=int, default=30, help='number of images to use'
    )
    parser.add_argument('--out', type=Path, help='results folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='attention_rank.json of earlier calls, to show their models too',
    )
    parser.add_argument(
        '--share', type=float, default=0.8, help='share of the sum of singular values'
    )
    parser.add_argument(
        '--layers', nargs='+', type=int, default=[], help='layers to show; else four'
    )
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as test_dataloader.dataset.data_root=DIR',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_attention_rank

    args.cfg_options = parse_cfg_options(args.cfg_options)
    _, table = measure_attention_rank(**vars(args))
    print(table)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.errors import run

    run(main, args)
