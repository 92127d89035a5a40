"""Simulated 8 bits: python tools/quantize.py ptq|eval ...

ptq     CONFIG CHECKPOINT --out FILE [--calib N]: find the step sizes of a float model
        on training images; FILE is a checkpoint of simulated 8 bits, such as
        tools/train.py makes with configs/quantization/.
eval    CONFIG MODEL...: compare speed, size and accuracy on this CPU, as a table and
        JSON. MODEL is a checkpoint, in float or of simulated 8 bits, or a file of
        tools/export.py, which is what runs in integers.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    ptq = commands.add_parser('ptq', help='quantise after training, by calibration')
    compare = commands.add_parser('eval', help='compare precisions and files')
    for command in (ptq, compare):
        command.add_argument('config', help='config file, or name of a config')
    ptq.add_argument('checkpoint', help='file or URL')
    ptq.add_argument('--out', required=True, help='.pth or .safetensors')
    ptq.add_argument('--calib', type=int, default=256, help='number of training images')
    ptq.add_argument('--seed', type=int, default=0, help='seed of the draw of images')
    compare.add_argument(
        'sources', nargs='+', metavar='MODEL', help='checkpoint or exported file'
    )
    compare.add_argument('--out', help='JSON file; else in the work dir')
    compare.add_argument(
        '--images', type=int, help='number of test images, 0 for none; else all'
    )
    compare.add_argument('--batch-size', type=int, help='batch size of the timing')
    compare.add_argument('--repeat', type=int, default=20, help='rounds to time')
    for command in (ptq, compare):
        command.add_argument(
            '--cfg-options',
            nargs='+',
            action='extend',
            metavar='KEY=VALUE',
            help='override settings, such as model.backbone.img_size=224',
        )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import parse_cfg_options, quantize_after_training
    from illama_seg.studies import compare_precisions

    options = vars(args)
    command = options.pop('command')
    args.cfg_options = parse_cfg_options(args.cfg_options)
    if command == 'ptq':
        found, images = quantize_after_training(**options)
        print(f'{args.out}: {found} step sizes, found with {images} images')
    else:
        _, table = compare_precisions(**options)
        print(table)


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
