"""Complexity of one self-attention: the paper's closed forms and counts."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from illama_seg.errors import UserError
from illama_seg.layers.architectures import ARCHITECTURES
from illama_seg.studies.common import check_at_least, write_results
from illama_seg.studies.complexity.counts import closed_forms, count_self_attention
from illama_seg.studies.tables import Section, Table

DIMS = tuple(sizes['embed_dims'] for sizes in ARCHITECTURES.values())
NOTES = dict(
    closed_form='Table 2 of arXiv 2404.06773, multiply-accumulates',
    counted='multiply-accumulates; causal: every score, and the weights that the soft '
    'mask keeps at rate 0',
    strict='counted: scores and weights that the strict mask keeps',
    executed='computed by the CPU kernel for the soft mask at rate 0',
)
SECTION = Section(
    title='Complexity',
    files='complexity*.json',
    about='Multiply-accumulates of one self-attention.',
)
COLUMNS = {
    'N': '{tokens:,}',
    'D': '{dims:,}',
    'bidirectional, Table 2': '{closed_form[bidirectional]:,}',
    'counted': '{counted[bidirectional]:,}',
    'causal, Table 2': '{closed_form[causal]:,}',
    'causal, counted': '{counted[causal]:,}',
    'difference': '{difference:+.2%}',
    'strict, counted': '{counted[strict]:,}',
    'executed on a CPU': '{counted[executed]:,}',
}


def compare_complexity(
    dims: Sequence[int] | None = None,
    sizes: Sequence[int] = (224, 384),
    *,
    tokens: Sequence[int] = (),
    patch_size: int = 16,
    out: str | Path = 'work_dirs/complexity',
) -> tuple[dict, str]:
    """Compare Table 2's closed forms with counts and write complexity.json.

    Args:
        dims: channels D of a token; by default those of Tiny to Large.
        sizes: sides of square images in pixels.
        tokens: further numbers of tokens N.
        patch_size: side of a patch in pixels.
        out: folder to write to.

    Returns:
        Content of complexity.json, and a readable table.

    Raises:
        UserError: if a parameter is out of range.
    """
    dims = list(DIMS if dims is None else dims)
    sizes, tokens = list(sizes), list(tokens)
    check_at_least(1, dims=dims, sizes=sizes, tokens=tokens, patch_size=patch_size)
    if not dims:
        raise UserError('expected at least one number of channels', dims=dims)
    if not (sizes or tokens):
        raise UserError('expected a size or a number of tokens', sizes=sizes)
    counts = [(-(-size // patch_size)) ** 2 + 1 for size in sizes]
    rows = [_row(n, d) for n in dict.fromkeys([*counts, *tokens]) for d in dims]
    note = (
        'multiply-accumulates of one self-attention and its projections for one image; '
        f'causal, counted: {NOTES["counted"].partition(": ")[2]}'
    )
    cells = []
    for row in rows:
        form, counted = row['closed_form']['causal'], row['counted']['causal']
        cells.append(dict(row, difference=counted / form - 1))
    table = Table.of(cells, COLUMNS, note=note)
    path = Path(out) / 'complexity.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_results(path, [table], rows=rows, notes=NOTES), str(table)


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
