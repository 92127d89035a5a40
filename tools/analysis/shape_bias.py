"""Shape or texture: python tools/analysis/shape_bias.py CONFIG MODEL... --images DIR

MODEL is a checkpoint of CONFIG, or a model of timm: timm:NAME (downloads the weights),
timm:NAME=FILE or timm:NAME=random. DIR has the cue-conflict images,
SHAPE/SHAPE<n>-TEXTURE<n>.png. --decisions compares with published decisions of models
and people, or counts them alone. Prints a table by category; writes shape_bias.json,
shape_bias.png, shape_bias.csv, and each model's decisions in the published format.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', help='config file, or name of a config')
    parser.add_argument('sources', nargs='*', metavar='MODEL', help='see above')
    parser.add_argument('--images', help='folder of cue-conflict images')
    parser.add_argument(
        '--decisions', nargs='+', default=[], help='published CSV files, or folders'
    )
    parser.add_argument(
        '--categories',
        help='JSON file, category -> class numbers or names; by default WordNet for '
        "ImageNet's classes, and names for others",
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/shape_bias'))
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.backbone.img_size=224',
    )
    args = parser.parse_args()
    if args.config and not args.sources:
        parser.error(f'{args.config}: expected a MODEL after it')
    return args


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_shape_bias

    args.cfg_options = parse_cfg_options(args.cfg_options)
    _, table = measure_shape_bias(**vars(args))
    print(table)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.errors import run

    run(main, args)
