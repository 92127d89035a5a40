"""Loss around the weights: python tools/analysis/loss_landscape.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG; for a classification also 'random' or a model of timm:
timm:NAME (downloads the weights), timm:NAME=FILE or timm:NAME=random. Takes
filter-normalised random directions (arXiv 1712.09913). Prints a table; writes
loss_landscape.json and loss_landscape.png, and each point as soon as it is computed:
the same command continues an interrupted one.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('sources', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument('--out', type=Path, help='results folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='loss_landscape.json of earlier calls, to show their models too',
    )
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
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as train_dataloader.dataset.data_root=DIR',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_loss_landscape

    args.cfg_options = parse_cfg_options(args.cfg_options)
    _, table = measure_loss_landscape(**vars(args))
    print(table)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.errors import run

    run(main, args)
