"""Ask questions of images.

    python tools/ask.py CONFIG CHECKPOINT IMAGE... --questions FILE...

CONFIG and CHECKPOINT are of the backbone that the questions were trained with; its own
head is not used. Each image is read once, whole. Writes OUT/QUESTION/NAME_labels.png
(class numbers), OUT/QUESTION/NAME_overlay.jpg and OUT/asked.json (seconds, share of
each class). Questions: tools/checkpoints/question.py.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('inputs', nargs='+', help='images, or folders of them')
    parser.add_argument(
        '--questions', nargs='+', required=True, help='.safetensors files'
    )
    parser.add_argument('--out', default='outputs', help='folder')
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.backbone.memory_rows=8',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import (
        ask_files,
        find_images,
        load_config,
        load_segmentor,
        parse_cfg_options,
    )

    images = find_images(args.inputs, skip=args.out)
    cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
    model = load_segmentor(cfg, args.checkpoint, args.device)
    numbers = ask_files(model, images, args.questions, args.out)
    reading, asking = numbers['reading_seconds'], numbers['asking_seconds']
    print(
        f'{args.out}: {len(images)} read in {1e3 * reading:.1f} ms each, '
        f'{len(args.questions)} questions asked in {1e3 * asking:.1f} ms (medians)'
    )


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
