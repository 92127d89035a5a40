"""Initial weights from LLaMA-2.

    python tools/checkpoints/select_llama_weights.py SRC_DIR --arch ARCH --out FILE

SRC_DIR has a LLaMA in Hugging Face's format, in safetensors. Set
model.backbone.init_cfg.checkpoint to FILE (.pth, .safetensors); weights that FILE lacks
start from scratch.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='folder with the safetensors of LLaMA')
    parser.add_argument('--arch', required=True, choices=('tiny', 'small', 'base'))
    parser.add_argument('--out', required=True, help='file to write')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.checkpoints import select_llama_weights, weights_path, write_weights

    weights_path(args.out)  # before the long work
    weights = select_llama_weights(args.source, args.arch)
    write_weights(weights, args.out)
    print(f'{args.out}: {len(weights)} tensors for the blocks of iLLaMA-{args.arch}')


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
