"""Loss around the weights: python tools/analysis/loss_landscape.py CONFIG MODEL...

MODEL is a checkpoint of CONFIG, of a classification or a segmentation; for a
classification also 'random' or timm's model: timm:NAME (weights downloaded),
timm:NAME=FILE or timm:NAME=random. Filter-normalised random directions (arXiv
1712.09913). Prints a table; writes loss_landscape.json and loss_landscape.png, and each
point as it is computed: call it again to go on.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Loss landscape (Figure 10)')
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('models', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument('--out', type=Path, help='folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help='loss_landscape.json of earlier calls, to show their models too',
    )
    parser.add_argument('--points', type=int, default=21, help='to a side, odd')
    parser.add_argument(
        '--radius', type=float, default=1.0, help="in lengths of the weights' filters"
    )
    parser.add_argument('--num-images', type=int, default=256, help='of the split')
    parser.add_argument('--split', choices=['train', 'test'], default='train')
    parser.add_argument(
        '--seed', type=int, default=0, help='of directions and images drawn'
    )
    parser.add_argument(
        '--restart', action='store_true', help="forget an earlier call's points"
    )
    parser.add_argument('--batch-size', type=int, help="else the config's")
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import measure_loss_landscape

    try:
        _, table = measure_loss_landscape(
            args.config,
            args.models,
            args.out,
            args.beside,
            args.points,
            args.radius,
            args.num_images,
            args.split,
            args.seed,
            args.restart,
            args.batch_size,
            args.device,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(table)


if __name__ == '__main__':
    main()
