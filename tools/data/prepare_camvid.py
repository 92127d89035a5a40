"""Prepare CamVid: python tools/data/prepare_camvid.py [FOLDER_OR_ARCHIVE] [--out D]"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        nargs='?',
        help='folder or archive (.zip, .tar.gz) with CamVid anywhere inside; '
        'downloaded by default',
    )
    parser.add_argument('--out', default='data/camvid', help='folder to make')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.datasets.prepare import prepare_camvid

    made = prepare_camvid(**vars(args))
    sizes = ', '.join(f'{count} {split}' for split, count in made['counts'].items())
    print(f'{args.out}: {sizes} images{"" if made["made"] else ", there already"}')
    for split, same in made['published'].items():
        if same:
            print(f'{split}: the annotations are those published')
        else:
            print(f'warning: {split}: the annotations are not those published')
    print(f'{"class":<12}{"pixels":>8}')
    for name, share in made['pixel_share'].items():
        print(f'{name:<12}{share:>8.1%}')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
