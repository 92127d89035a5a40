"""Shape or texture: python tools/analysis/shape_bias.py CONFIG MODEL... --images DIR

MODEL is a checkpoint of CONFIG, or a model of timm: timm:NAME (downloads the weights),
timm:NAME=FILE or timm:NAME=random. DIR has the cue-conflict images,
SHAPE/SHAPE<n>-TEXTURE<n>.png. --decisions compares with published decisions of models
and people, or counts them alone. Prints a table by category; writes shape_bias.json,
shape_bias.png, shape_bias.csv, and each model's decisions in the published format.
"""

import argparse
from pathlib import Path

from arguments import add_config, add_device, keywords, run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser, 'model.backbone.img_size=224', nargs='?')
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
    add_device(parser)
    args = parser.parse_args()
    if args.config and not args.sources:
        parser.error(f'{args.config}: expected a MODEL after it')
    return args


def main(args: argparse.Namespace) -> None:
    from illama_seg.studies import measure_shape_bias

    print(measure_shape_bias(**keywords(args))[1])


if __name__ == '__main__':
    run(main, parse_args())
