"""8 bits: python tools/quantize.py ptq|export|eval ...

ptq     CONFIG CHECKPOINT --out FILE [--calib N]: calibrate a float model on training
        images and export it.
export  CONFIG CHECKPOINT --out FILE: export what a quantisation-aware training ended
        with; tools/train.py and configs/quantization/ train it.
eval    CONFIG MODEL...: speed, size and accuracy of float32, bfloat16 and 8 bits, side
        by side on this CPU, as a table and JSON. MODEL is a checkpoint in float, an
        exported file, or a checkpoint of a quantisation-aware training.
"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    ptq = commands.add_parser('ptq', help='after training, by calibration')
    export = commands.add_parser('export', help='after quantisation-aware training')
    compare = commands.add_parser('eval', help='float32, bfloat16 and 8 bits')
    for command in (ptq, export, compare):
        command.add_argument('config', help='config file, or name of a config')
    for command in (ptq, export):
        command.add_argument('checkpoint', help='file or URL')
        command.add_argument('--out', required=True, help='.pth or .safetensors')
    ptq.add_argument('--calib', type=int, default=256, help='training images')
    ptq.add_argument('--seed', type=int, default=0, help='which ones')
    compare.add_argument('models', nargs='+', metavar='MODEL', help='see above')
    compare.add_argument('--out', help='JSON file; else in the work dir')
    compare.add_argument('--images', type=int, help='test images, 0: none; else all')
    compare.add_argument('--batch-size', type=int, help='of the pass that is timed')
    compare.add_argument('--repeat', type=int, default=20, help='rounds timed')
    for command in (ptq, export, compare):
        command.add_argument(
            '--cfg-options', nargs='+', action='extend', metavar='KEY=VALUE'
        )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import (
        export_quantized,
        parse_cfg_options,
        quantize_after_training,
    )
    from illama_seg.studies import compare_precisions

    try:
        options = parse_cfg_options(args.cfg_options)
        if args.command == 'ptq':
            found, images = quantize_after_training(
                args.config, args.checkpoint, args.out, args.calib, args.seed, options
            )
            print(f'{args.out}: {found} step sizes, found with {images} images')
        elif args.command == 'export':
            export_quantized(args.config, args.checkpoint, args.out, options)
            print(f'{args.out} written')
        else:
            _, table = compare_precisions(
                args.config,
                args.models,
                args.out,
                args.images,
                args.batch_size,
                args.repeat,
                options,
            )
            print(table)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
