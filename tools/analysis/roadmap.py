"""The roadmap from ViT to iLLaMA in micro size: python tools/analysis/roadmap.py

Trains every step of Table 17 and three schedules of the soft mask on handwritten
digits, most of a minute each, as many side by side as there are cores. Prints the
table; writes roadmap.json, roadmap.png, soft_mask.png.
A run that was finished by an earlier call is not repeated.
"""

import argparse
import sys
from pathlib import Path

CONFIGS = Path(__file__).parents[2] / 'configs'


def main() -> None:
    parser = argparse.ArgumentParser(description='Train the steps from ViT to iLLaMA')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/roadmap'))
    parser.add_argument('--seeds', type=int, default=3, help='runs of each step')
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.studies import run_roadmap

    try:
        table = run_roadmap(
            CONFIGS / 'pretrain' / 'illama_micro_digits.py',
            CONFIGS / 'ablation',
            args.out,
            args.seeds,
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('\nstopped; the same command goes on after the last finished run')
    print(table)
    for name in ('roadmap.json', 'roadmap.png', 'soft_mask.png'):
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    main()
