"""Table 9's soft mask ablation: python tools/analysis/soft_mask_ablation.py CONFIG

Trains the config without soft mask and with it, and the plain ViT of the config beside
it, one after the other into OUT/{vit,none,linear,...}/SEED. Prints a table; writes
compare.png and compare.json. Finished runs are kept, interrupted ones gone on with; on
several GPUs train them into these folders by tools/dist_train.sh first.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Train with and without soft mask')
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/soft_mask'))
    parser.add_argument(
        '--masks', nargs='+', help="none, constant, linear; else none and the config's"
    )
    parser.add_argument('--seeds', type=int, default=1, help='runs of each line')
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import run_soft_mask_ablation

    try:
        table = run_soft_mask_ablation(
            args.config,
            args.out,
            args.masks,
            args.seeds,
            args.amp,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command goes on from the last checkpoint')
    print(table)
    for name in ('compare.png', 'compare.json'):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    main()
