"""Complexity of one self-attention: the paper's closed forms and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from prettytable import PrettyTable

from illama_seg.errors import UserError
from illama_seg.layers.architectures import ARCHITECTURES
from illama_seg.studies.complexity.counts import closed_forms, count_self_attention

DIMS = tuple(sizes['embed_dims'] for sizes in ARCHITECTURES.values())
NOTES = dict(
    closed_form='Table 2 of arXiv 2404.06773, multiply-accumulates',
    counted='multiply-accumulates; causal: every score, and the weights that the soft '
    'mask keeps at rate 0',
    strict='counted, of the strict mask: scores and weights that it keeps',
    executed="what the CPU's kernel computes for the soft mask at rate 0",
)


def compare_complexity(
    dims: Sequence[int] | None = None,
    sizes: Sequence[int] = (224, 384),
    tokens: Sequence[int] = (),
    patch_size: int = 16,
    out: str | Path = 'work_dirs/complexity',
) -> tuple[dict, str]:
    """Lay Table 2's closed forms and counts side by side; write complexity.json.

    Args:
        dims: channels D of a token; by default those of Tiny to Large.
        sizes: sides of square images in pixels.
        tokens: numbers of tokens N, further ones.
        patch_size: side of a patch in pixels.
        out: folder to write to.

    Returns:
        What is in complexity.json, and a readable table.

    Raises:
        ValueError: if an option is out of its range.
    """
    dims = DIMS if dims is None else dims
    numbers_given = patch_size, *dims, *sizes, *tokens
    if min(numbers_given) < 1 or not dims or not (sizes or tokens):
        raise UserError(
            f'--dims {list(dims)} --sizes {list(sizes)} --tokens {list(tokens)} '
            f'--patch-size {patch_size}: expected numbers from 1 on, of dims at least '
            'one, and a size or tokens'
        )
    counts = [(-(-size // patch_size)) ** 2 + 1 for size in sizes]
    rows = [_row(n, d) for n in dict.fromkeys([*counts, *tokens]) for d in dims]
    numbers = dict(rows=rows, notes=NOTES, versions=dict(torch=torch.__version__))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'complexity.json').write_text(json.dumps(numbers, indent=1))
    return numbers, _table(rows)


def _row(num_tokens: int, embed_dims: int) -> dict:
    bidirectional, causal = closed_forms(num_tokens, embed_dims)
    counts = asdict(count_self_attention(num_tokens, embed_dims))
    linear = counts.pop('linear')
    return dict(
        tokens=num_tokens,
        dims=embed_dims,
        linear=linear,
        closed_form=dict(bidirectional=bidirectional, causal=causal),
        counted={name: linear + products for name, products in counts.items()},
    )


def _table(rows: Sequence[dict]) -> str:
    table = PrettyTable(
        [
            'N',
            'D',
            'bidirectional, Table 2',
            'counted',
            'causal, Table 2',
            'counted ',
            'difference',
            'strict, counted',
            'executed on a CPU',
        ],
        align='r',
    )
    for row in rows:
        form, counted = row['closed_form'], row['counted']
        table.add_row(
            [
                row['tokens'],
                row['dims'],
                f'{form["bidirectional"]:,}',
                f'{counted["bidirectional"]:,}',
                f'{form["causal"]:,}',
                f'{counted["causal"]:,}',
                f'{counted["causal"] / form["causal"] - 1:+.2%}',
                f'{counted["strict"]:,}',
                f'{counted["executed"]:,}',
            ]
        )
    return (
        f'{table}\nmultiply-accumulates of one self-attention and its projections, one '
        f'image; causal, counted: {NOTES["counted"].partition(": ")[2]}'
    )
