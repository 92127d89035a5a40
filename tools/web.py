"""Show models on a web page of this machine: python tools/web.py MODEL...

MODEL is the work dir of a training, such as work_dirs/demo, or a file of
tools/export.py. Several models are shown side by side on the same image.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('models', nargs='+', metavar='MODEL')
    parser.add_argument('--port', type=int, default=7860, help='0 for any free one')
    parser.add_argument(
        '--examples', nargs='+', default=[], help='images, or folders of them, to offer'
    )
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    from illama_seg.apis import find_images
    from illama_seg.web import build_page, open_models, serve

    examples = [path for path, _ in find_images(args.examples)][:6]
    page = build_page(open_models(args.models), examples)
    url = serve(page, args.port)
    print(f'{url} (Ctrl+C ends it)', flush=True)
    page.block_thread()


if __name__ == '__main__':
    args = parse_args()
    # After the arguments: --help needs no torch.
    from illama_seg.apis.command_line import run

    run(main, args)
