"""Initial weights from LLaMA-2.

    python tools/checkpoints/select_llama_weights.py SRC_DIR --arch ARCH --out FILE

SRC_DIR is a LLaMA as Hugging Face stores it, in safetensors. FILE (.pth, .safetensors)
goes into model.backbone.init_cfg.checkpoint; what it lacks starts from scratch.
"""

import argparse
import sys


def main() -> None:
    parser = argparse.ArgumentParser(description='Select weights from a LLaMA')
    parser.add_argument('source', help="LLaMA's folder, with its safetensors")
    parser.add_argument('--arch', required=True, choices=('tiny', 'small', 'base'))
    parser.add_argument('--out', required=True, help='file to write')
    parser.add_argument(
        '--rotary-pairs',
        default='stored',
        choices=('stored', 'adjacent'),
        help="rows of q and k: the paper's, or whole rotary pairs made adjacent",
    )
    args = parser.parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.checkpoints import select_llama_weights, weights_path, write_weights

    try:
        weights_path(args.out)  # before the long work
        weights = select_llama_weights(args.source, args.arch, args.rotary_pairs)
        write_weights(weights, args.out)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    print(f'{args.out}: {len(weights)} tensors for the blocks of iLLaMA-{args.arch}')


if __name__ == '__main__':
    main()
