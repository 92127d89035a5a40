"""Segment images: python tools/infer.py CONFIG CHECKPOINT IMAGE_OR_FOLDER... --out DIR

Writes DIR/overlay/NAME.jpg (painted, with the classes' names), DIR/labels/NAME.png (the
data set's own label ids, one channel) and DIR/summary.json (share of each class).
Pictures of any size: logits are kept for one row of windows only. --full-size segments
them as they are, without the test pipeline's resizing.
"""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Segment images')
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('inputs', nargs='+', help='images or folders of images')
    parser.add_argument('--out', default='outputs', help='folder for the results')
    parser.add_argument(
        '--device', help="'cpu', 'cuda:0', ...; a GPU where there is one"
    )
    parser.add_argument('--opacity', type=float, default=0.5, help='of the overlay')
    parser.add_argument(
        '--full-size',
        action='store_true',
        help='windows over the image as it is, where the test pipeline would resize it',
    )
    parser.add_argument(
        '--blend',
        choices=['mean', 'hann', 'gaussian'],
        default='mean',
        help='how overlapping windows are averaged; mean is what testing does',
    )
    parser.add_argument(
        '--batch-size', type=int, help='windows at once; 1 on a CPU, 8 on a GPU'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.test_cfg.mode=whole',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis import (
        find_images,
        load_config,
        load_segmentor,
        parse_cfg_options,
        segment_files,
    )

    try:
        images = find_images(args.inputs, skip=args.out)
        cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
        model = load_segmentor(cfg, args.checkpoint, args.device)
        summary, failures = segment_files(
            model,
            images,
            args.out,
            args.opacity,
            args.full_size,
            args.blend,
            args.batch_size,
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f'error: {error}')
    if summary:
        print(f'{len(summary)} images segmented: {args.out}/overlay, {args.out}/labels')
    if failures:
        sys.exit('error: not segmented:\n' + '\n'.join(failures))


if __name__ == '__main__':
    main()
