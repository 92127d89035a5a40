"""Export a trained model: python tools/export.py CONFIG CHECKPOINT --to onnx --out DIR

Writes DIR/CONFIG.onnx, or DIR/CONFIG.xml and DIR/CONFIG.bin for OpenVINO, beside it a
sidecar (.json) with all that is needed to use the file, and a report (.report.json).
The file is compared with the model on images; where it differs, nothing is written and
the exit status is 2. To run it without torch:
python -m illama_seg.deploy DIR/CONFIG.onnx IMAGES
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--to', choices=['onnx', 'openvino'], default='onnx')
    parser.add_argument('--out', default='exported', help='folder to write to')
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('H', 'W'),
        help='pixels that the file takes; by default a window of the config',
    )
    sizes.add_argument('--dynamic', action='store_true', help='take any size')
    numbers = parser.add_mutually_exclusive_group()
    numbers.add_argument('--half', action='store_true', help='numbers of 16 bits')
    numbers.add_argument(
        '--int8', action='store_true', help='weights and maps of 8 bits'
    )
    parser.add_argument(
        '--calibrate',
        type=int,
        default=64,
        metavar='N',
        help='training images that find the ranges of --int8',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        default=[],
        help='files or folders to compare on; by default validation images',
    )
    parser.add_argument(
        '--num-images', type=int, default=8, help='images to compare on'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.test_cfg.mode=whole',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import export_model, parse_cfg_options

    path, report = export_model(
        args.config,
        args.checkpoint,
        args.out,
        to=args.to,
        size=args.size and tuple(args.size),
        dynamic=args.dynamic,
        half=args.half,
        int8=args.int8,
        calibrate=args.calibrate,
        images=args.images,
        num_images=args.num_images,
        cfg_options=parse_cfg_options(args.cfg_options),
    )
    print(f'{path}: {report["bytes"] / 2**20:.1f} MiB')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
