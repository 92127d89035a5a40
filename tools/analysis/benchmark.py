"""Time a model and count what it takes: python tools/analysis/benchmark.py CONFIG

Prints tables and writes benchmark.json: latency and throughput at each batch size, peak
memory, parameters, and multiply-accumulates with and without what papers leave out.
"""

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description='Time a segmentor or classifier')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', nargs='?', help='its weights; else random ones')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help="else the training's"
    )
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1])
    parser.add_argument('--repeat', type=int, default=10, help='passes timed')
    parser.add_argument(
        '--amp', action='store_true', help='half precision where it is faster here'
    )
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument('--out', type=Path, help='JSON file; else in the work dir')
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import parse_cfg_options
    from illama_seg.studies import run_benchmark

    try:
        _, tables = run_benchmark(
            args.config,
            args.checkpoint,
            args.out,
            args.shape and tuple(args.shape),
            args.batch_sizes,
            args.repeat,
            args.amp,
            args.device,
            parse_cfg_options(args.cfg_options),
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(tables)


if __name__ == '__main__':
    main()
