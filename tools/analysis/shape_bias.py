"""Shape or texture: python tools/analysis/shape_bias.py CONFIG MODEL... --images DIR

MODEL is a checkpoint of CONFIG, or timm's model by name: timm:NAME (weights
downloaded), timm:NAME=FILE or timm:NAME=random. DIR has the cue-conflict images,
SHAPE/SHAPE<n>-TEXTURE<n>.png. --decisions lays published decisions of models and people
beside, or counts them alone. Prints a table by category; writes shape_bias.json,
shape_bias.png, shape_bias.csv, and each model's decisions in the published format.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Shape-texture bias of classifiers')
    parser.add_argument('config', nargs='?', help='config file, or name of a config')
    parser.add_argument('models', nargs='*', metavar='MODEL', help='see above')
    parser.add_argument('--images', help='folder of cue-conflict images')
    parser.add_argument(
        '--decisions', nargs='+', default=[], help='published CSV files, or folders'
    )
    parser.add_argument(
        '--categories',
        help='JSON, category -> class numbers or names; by default WordNet for '
        "ImageNet's classes, and names for others",
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/shape_bias'))
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_shape_bias

    if args.config and not args.models:
        parser.error(f'{args.config}: expected a MODEL after it')
    try:
        _, table = measure_shape_bias(
            args.config,
            args.models,
            args.images,
            args.decisions,
            args.out,
            args.categories,
            args.batch_size,
            args.device,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)


if __name__ == '__main__':
    main()
