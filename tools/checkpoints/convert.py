"""Convert a checkpoint: python tools/checkpoints/convert.py IN OUT_OR_DIR [--names N]

Between .pth and .safetensors, by OUT's suffix; between the names of the released files
and ours, by --names. OUT's name gets the start of its sha256: name-0123abcd.pth.
"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description='Convert a checkpoint')
    parser.add_argument('source', help='checkpoint file or URL')
    parser.add_argument('target', help='.pth, .safetensors, or a folder that exists')
    parser.add_argument(
        '--names', choices=('released', 'ours'), help='of the keys; kept by default'
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.checkpoints import convert_checkpoint

    try:
        print(convert_checkpoint(args.source, args.target, args.names))
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
