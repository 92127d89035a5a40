"""Arguments that several tools of this folder have; --help of these needs no torch."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def study_parser(
    description: str | None, results: str, split: str = 'test'
) -> argparse.ArgumentParser:
    """Return the parser of a study of models: its JSON file, the data that it reads."""
    parser = argparse.ArgumentParser(description=description)
    add_config(parser, f'{split}_dataloader.dataset.data_root=DIR')
    parser.add_argument('sources', nargs='+', metavar='MODEL', help='see above')
    parser.add_argument('--out', type=Path, help='results folder; else in the work dir')
    parser.add_argument(
        '--beside',
        nargs='+',
        default=[],
        metavar='JSON',
        help=f'{results} of earlier calls, to show their models too',
    )
    add_device(parser)
    return parser


def add_config(parser: argparse.ArgumentParser, example: str, **options: Any) -> None:
    """Add the config and its overrides, with an example of one."""
    parser.add_argument('config', help='config file, or name of a config', **options)
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help=f'override settings, such as {example}',
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add the device."""
    parser.add_argument('--device', help="such as 'cpu'; else a GPU if there is one")


def keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments by name, the overrides of the config parsed."""
    from illama_seg.apis import parse_cfg_options

    return vars(args) | {'cfg_options': parse_cfg_options(args.cfg_options)}


def run(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Call the main function of a tool; see ``illama_seg.apis.command_line.run``."""
    from illama_seg.apis import command_line

    command_line.run(main, args)
