"""Convert a checkpoint: python tools/checkpoints/convert.py IN OUT_OR_DIR [--names N]

Converts between .pth and .safetensors, by OUT's suffix, and between the key names of
the released files and ours, by --names. OUT's name gets the start of its sha256:
name-0123abcd.pth.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='checkpoint file or URL')
    parser.add_argument('target', help='.pth, .safetensors, or an existing folder')
    parser.add_argument(
        '--names', choices=('released', 'ours'), help='names of the keys; else kept'
    )
    parser.add_argument(
        '--merge-lora',
        action='store_true',
        help='add the adapters of a training with model.backbone.lora to the weights',
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.checkpoints import convert_checkpoint

    print(convert_checkpoint(**vars(args)))


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
