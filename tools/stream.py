"""Segment while rows arrive: python tools/stream.py CONFIG CHECKPOINT FILE --out DIR

FILE is an image, or a video whose frames are the next rows each, as a line camera's.
Writes DIR/NAME_labels.png (one channel, the label ids of the data set),
DIR/NAME_overlay.jpg and DIR/NAME_stream.json (latency of each band). The backbone's
attn_mask is 'strict' or 'chunked', the head a LinearHead or ClassTokenHead.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('file', help='image or video')
    parser.add_argument('--out', default='outputs', help='folder')
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--rows-at-once', type=int, help='rows that arrive together; else a band'
    )
    parser.add_argument(
        '--animation', action='store_true', help='write DIR/NAME_stream.gif too'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.backbone.chunk_rows=2',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import (
        load_config,
        load_segmentor,
        parse_cfg_options,
        stream_file,
    )

    cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
    model = load_segmentor(cfg, args.checkpoint, args.device)
    numbers = stream_file(model, args.file, args.out, args.rows_at_once, args.animation)
    print(
        f'{len(numbers["bands"])} bands of {numbers["band_rows"]} rows: labels '
        f'{1e3 * numbers["median_seconds"]:.1f} ms after the last row of a band '
        f'(slowest {1e3 * numbers["slowest_seconds"]:.1f} ms): {args.out}'
    )


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
