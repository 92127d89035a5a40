"""Prepare ADE20K: python tools/data/prepare_ade20k.py [FOLDER_OR_ZIP] [--out D]"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source',
        nargs='?',
        help='zip or folder with ADEChallengeData2016 anywhere inside; by default '
        'downloaded, also in several attempts',
    )
    parser.add_argument(
        '--out', default='data/ade/ADEChallengeData2016', help='folder to make'
    )
    parser.add_argument('--workers', type=int, help='processes that check the files')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.datasets.prepare import prepare_ade20k

    made = prepare_ade20k(**vars(args))
    sizes = ', '.join(f'{s["images"]:,} {name}' for name, s in made['splits'].items())
    print(f'{args.out}: {sizes} images{"" if made["made"] else ", there already"}')
    if made['published'] is False:
        print('warning: not the published zip, but its files passed the check')
    print(f'sizes, labels and classes: {made["report"]}')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
