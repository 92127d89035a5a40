"""Rank of attention maps: python tools/analysis/attention_rank.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG, 'random' for the weights that a training of it starts
from, or timm's model by name: timm:NAME (weights downloaded), timm:NAME=FILE or
timm:NAME=random. Prints how many singular values make 0.8 of their sum, before and
after the mask, by layer and head; writes attention_rank.json and attention_rank.png
(Figures 4 and 11).
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Rank of attention maps')
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('models', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument(
        '--images', nargs='+', default=[], help="files, folders; else the test data's"
    )
    parser.add_argument('--num-images', type=int, default=30, help='of them')
    parser.add_argument('--out', type=Path, help='folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='attention_rank.json of earlier calls, to show their models too',
    )
    parser.add_argument(
        '--share', type=float, default=0.8, help='where the index is read'
    )
    parser.add_argument(
        '--layers', nargs='+', type=int, default=[], help='to show; else four'
    )
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_attention_rank

    try:
        _, table = measure_attention_rank(
            args.config,
            args.models,
            args.images,
            args.out,
            args.beside,
            args.num_images,
            args.share,
            args.layers,
            args.batch_size,
            args.device,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)


if __name__ == '__main__':
    main()
