"""Prepare ADE20K: python tools/data/prepare_ade20k.py [FOLDER_OR_ZIP] [--out D]"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Get, check and report on ADE20K (SceneParse150)'
    )
    parser.add_argument(
        'source',
        nargs='?',
        help='zip or folder with ADEChallengeData2016 anywhere inside; downloaded by '
        'default, and a download that broke off goes on',
    )
    parser.add_argument(
        '--out', default='data/ade/ADEChallengeData2016', help='folder to make'
    )
    parser.add_argument('--workers', type=int, help='processes that check the files')
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.datasets.prepare import prepare_ade20k

    try:
        made = prepare_ade20k(args.out, args.source, workers=args.workers)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    sizes = ', '.join(f'{s["images"]:,} {name}' for name, s in made['splits'].items())
    print(f'{args.out}: {sizes} images{"" if made["made"] else ", there already"}')
    if made['published'] is False:
        print(
            'warning: the zip is not the one published; what is in it is as it should'
        )
    print(f'sizes, labels and classes: {made["report"]}')


if __name__ == '__main__':
    main()
