"""Tables of a JSON file for the report's page."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from illama_seg.studies.tables import Table

LONGEST = 200  # rows of a table; ADE20K has 150 classes
LISTED = 6  # numbers that a cell can list; longer lists are curves
Path = tuple[str, ...]  # keys to a value in a JSON; () is the name of its row


def page_tables(data: Any) -> list[Table]:
    """Return the tables that a file stores under ``tables``, else all that fits."""
    try:
        tables = [Table(**table) for table in data['tables']]
    except (KeyError, TypeError):  # a file without tables, or of another program
        tables = list(all_tables(data))
    return [_shortened(table) for table in tables if table.rows]


def all_tables(data: Any, title: str = '') -> Iterator[Table]:
    """Yield tables of any JSON: its scalars, dicts of dicts and lists of dicts.

    Long lists of numbers are left out, because images show them.
    """
    rows = _rows(data)
    if rows is not None:
        cells = [{(): name, **_leaves(row)} for name, row in rows]
        paths = dict.fromkeys(path for row in cells for path in row if path)
        if paths:
            if any(name for name, _ in rows):
                paths = {(): None, **paths}
            yield Table(
                [', '.join(map(_words, path)) for path in paths],
                [[row.get(path, '') for path in paths] for row in cells],
                title,
            )
        for number, (name, row) in enumerate(rows, 1):
            label = name or format_value(row.get('name', number))
            for key, value in row.items():
                if isinstance(value, list) and _rows(value) is not None:
                    yield from all_tables(value, f'{label}: {_words(key)}')
    elif isinstance(data, Mapping):
        scalars = _leaves({k: v for k, v in data.items() if not isinstance(v, Mapping)})
        if scalars:
            yield Table(
                (), [(_words(key), text) for (key,), text in scalars.items()], title
            )
        for key, value in data.items():
            yield from all_tables(value, f'{title}: {_words(key)}' if title else key)


def _shortened(table: Table) -> Table:
    """Cut a table after ``LONGEST`` rows, with a note on the others."""
    more = len(table.rows) - LONGEST
    if more <= 0:
        return table
    note = f'{table.note}\n{more} more rows are in the file.'.lstrip()
    return replace(table, rows=table.rows[:LONGEST], note=note)


def format_value(value: Any) -> str:
    """Format a JSON value for a cell."""
    if value is None:
        return '-'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return f'{value:,}'
    if isinstance(value, float):
        if value == 0:
            return '0'
        text = f'{value:,.0f}' if 1e3 <= abs(value) < 1e15 else f'{value:#.4g}'
        return text.rstrip('.')
    if isinstance(value, list):
        return ', '.join(map(format_value, value))
    return str(value).strip()


def is_number(text: str) -> bool:
    """Return whether a cell is aligned to the right."""
    return bool(re.fullmatch(r'-|[-+]?[\d,.]+(e[-+]?\d+)?( ?%)?|nan|-?inf', text))


def _rows(data: Any) -> list[tuple[str, Mapping]] | None:
    """Return name and content of each row; None where the data are no rows."""
    if isinstance(data, Mapping):
        pairs = list(data.items())
    elif isinstance(data, list):
        pairs = [('', row) for row in data]
    else:
        return None
    if not pairs or not all(isinstance(row, Mapping) for _, row in pairs):
        return None
    return [(str(name).strip(), row) for name, row in pairs]


def _leaves(row: Mapping[str, Any], prefix: Path = ()) -> dict[Path, str]:
    """Return path -> text of each scalar and short list."""
    leaves: dict[Path, str] = {}
    for key, value in row.items():
        path = (*prefix, str(key))
        if isinstance(value, Mapping):
            leaves |= _leaves(value, path)
        elif not isinstance(value, list) or _is_short(value):
            leaves[path] = format_value(value)
    return leaves


def _is_short(value: list) -> bool:
    return 0 < len(value) <= LISTED and not any(
        isinstance(entry, Mapping | list) for entry in value
    )


def _words(key: str) -> str:
    """Return a variable's name as words, and any other key unchanged."""
    return key.replace('_', ' ') if re.fullmatch('[a-z][a-z0-9_]*', key) else key
