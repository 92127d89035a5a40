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
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import ask_files, find_images, load_config, load_segmentor

    images = find_images(args.inputs, skip=args.out)
    model = load_segmentor(load_config(args.config), args.checkpoint, args.device)
    numbers = ask_files(model, images, args.questions, args.out)
    print(
        f'{len(images)} images read in {1e3 * numbers["reading_seconds"]:.1f} ms each, '
        f'{len(args.questions)} questions asked in '
        f'{1e3 * numbers["asking_seconds"]:.1f} ms (medians): {args.out}'
    )


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
