"""Segment images: python tools/infer.py CONFIG CHECKPOINT IMAGE_OR_FOLDER... --out DIR

Writes DIR/overlay/NAME.jpg (painted, with the names of the classes),
DIR/labels/NAME.png (one channel, the label ids of the data set) and DIR/summary.json
(share of each class). Of a video it writes DIR/overlay/NAME.mp4, without sound, and the
legend, NAME.png; --out FILE.mp4 writes one video there.
Images may have any size: logits are kept for one row of windows only. --full-size skips
the resizing of the test pipeline.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('inputs', nargs='+', help='images, videos, or folders of them')
    parser.add_argument('--out', default='outputs', help='folder, or file of one video')
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--opacity', type=float, default=0.5, help='opacity of the overlay, 0 to 1'
    )
    parser.add_argument(
        '--full-size',
        action='store_true',
        help='put the windows over the image as it is, without resizing it first',
    )
    parser.add_argument(
        '--blend',
        choices=['mean', 'hann', 'gaussian'],
        default='mean',
        help='weights of overlapping windows; tools/test.py uses mean',
    )
    parser.add_argument(
        '--batch-size', type=int, help='windows at once; 1 on a CPU, 8 on a GPU'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='keep the results that --out has already, whatever they were made with',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='share the images among the processes that torchrun, srun or mpirun began',
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
    from illama_seg.apis import (
        find_images,
        load_config,
        load_segmentor,
        parse_cfg_options,
        segment_files,
    )
    from illama_seg.apis.images import IMAGE_SUFFIXES
    from illama_seg.apis.runs.processes import join_processes
    from illama_seg.apis.video import VIDEO_SUFFIXES, is_video
    from illama_seg.errors import UserError

    suffixes = IMAGE_SUFFIXES + VIDEO_SUFFIXES
    images = find_images(args.inputs, skip=args.out, suffixes=suffixes)
    cfg = load_config(
        args.config, parse_cfg_options(args.cfg_options), launcher=args.launcher
    )
    join_processes(cfg)
    model = load_segmentor(cfg, args.checkpoint, args.device, fold=True)
    summary, failures = segment_files(
        model,
        images,
        out=args.out,
        opacity=args.opacity,
        full_size=args.full_size,
        blend=args.blend,
        batch_size=args.batch_size,
        resume=args.resume,
    )
    if count := sum(not is_video(name) for name in summary):
        print(f'{count} images segmented: {args.out}/overlay, {args.out}/labels')
    if failures:
        raise UserError('not segmented:\n' + '\n'.join(failures))


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
