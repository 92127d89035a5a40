"""Score predicted PNGs: python tools/analysis/evaluate_predictions.py PRED_DIR ANN_DIR

Prints mIoU, accuracies and the benchmark's final score without a model; writes
scores.json, per_class.csv, confusion.png and confusion.json. PRED_DIR has label images
as written by tools/test.py --out or by tools/infer.py (its folder labels). Names may
end as those of the images do: --config, or --img-suffix and --seg-map-suffix, say how.
"""

import argparse

from arguments import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('predictions', help='folder of label PNGs')
    parser.add_argument('annotations', help='folder of PNGs of the same images')
    parser.add_argument('--out', default='evaluation', help='folder for the results')
    parser.add_argument(
        '--config',
        help='config whose test data names classes, ids and endings; by default ADE20K',
    )
    parser.add_argument(
        '--num-classes', type=int, help='ids are 1..N and 0 is not annotated'
    )
    parser.add_argument(
        '--from-zero', action='store_true', help='ids are 0..N-1 instead'
    )
    parser.add_argument(
        '--ignore-index', type=int, help='a further id not to count, beside 255'
    )
    parser.add_argument(
        '--predictions-from-zero',
        action='store_true',
        help='predictions are class numbers from 0, whatever the annotations have',
    )
    parser.add_argument(
        '--partial', action='store_true', help='count the images that both folders have'
    )
    parser.add_argument(
        '--img-suffix',
        help="ending of the images' names, such as _leftImg8bit.png; else the config's",
    )
    parser.add_argument(
        '--seg-map-suffix', help="ending of the annotations' names; else the config's"
    )
    parser.add_argument('--workers', type=int, help='processes; one for each core')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import evaluate_predictions
    from illama_seg.apis.scores import FILES

    print(evaluate_predictions(**vars(args))[1])
    for name in FILES:
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    run(main, parse_args())
