"""Take a question out of a checkpoint.

    python tools/checkpoints/question.py CONFIG CHECKPOINT OUT

The checkpoint is of an iLLaMA with num_queries and a ClassTokenHead, trained with a
frozen backbone (configs/queries/). OUT, a .safetensors file, holds the queries, the
head and the names of the classes: kilobytes, for tools/ask.py.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, or name of a config')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('out', help='.safetensors file to write')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings, such as model.backbone.memory_rows=8',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from illama_seg import Question
    from illama_seg.apis import load_config, load_segmentor, parse_cfg_options

    cfg = load_config(args.config, parse_cfg_options(args.cfg_options))
    model = load_segmentor(cfg, args.checkpoint, 'cpu')
    question = Question.of(model)
    question.save(args.out)
    size = Path(args.out).stat().st_size / 1024
    print(f'{args.out}: {", ".join(question.classes)} ({size:.0f} KiB)')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
