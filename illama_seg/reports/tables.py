"""Tables out of any JSON, for the report's page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LONGEST = 200  # rows of a table; ADE20K has 150 classes
LISTED = 6  # numbers that a cell can list; longer lists are curves
Path = tuple[str, ...]  # of a value in a JSON; () is the name of its row


@dataclass(frozen=True)
class Table:
    """A table of text; ``omitted`` rows of it are in the file only."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    omitted: int = 0


def chosen_table(data: Any, path: str, columns: Mapping[str, str]) -> Table | None:
    """Rows at a dotted path of a JSON, in declared columns.

    Args:
        data: what was read.
        path: to a list of dicts, or to a dict of dicts, whose keys are the first
            column; '' is the whole.
        columns: dotted path in a row -> head; '' is the row's key. Those that no row
            has are left out.

    Returns:
        The table; None where the file has no such rows.
    """
    found = data
    for part in filter(None, path.split('.')):
        found = found.get(part) if isinstance(found, Mapping) else None
    rows = _rows(found)
    if rows is None:
        return None
    heads = {tuple(filter(None, key.split('.'))): said for key, said in columns.items()}
    return _table('', rows, heads)


def facts(data: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Scalars of a dict, one below the other: dotted path in it -> their names."""
    leaves = _leaves(data)
    rows = [(said, leaves.get(tuple(key.split('.')))) for key, said in names.items()]
    return Table('', (), tuple((said, text) for said, text in rows if text is not None))


def all_tables(data: Any, title: str = '') -> Iterator[Table]:
    """Whatever of a JSON fits into tables: scalars, dicts of dicts, lists of dicts.

    Long lists of numbers are left out, they are for pictures.
    """
    rows = _rows(data)
    if rows is not None:
        named = [()] if any(name for name, _ in rows) else []
        paths = dict.fromkeys(path for _, row in rows for path in _leaves(row))
        heads = {path: ', '.join(map(_words, path)) for path in [*named, *paths]}
        if table := _table(title, rows, heads):
            yield table
        for number, (name, row) in enumerate(rows, 1):
            said = name or format_value(row.get('name', number))
            for key, value in row.items():
                if isinstance(value, list) and _rows(value) is not None:
                    yield from all_tables(value, f'{said}: {_words(key)}')
    elif isinstance(data, Mapping):
        own = _leaves({k: v for k, v in data.items() if not isinstance(v, Mapping)})
        if own:
            cells = tuple((_words(key), text) for (key,), text in own.items())
            yield Table(title, (), cells)
        for key, value in data.items():
            yield from all_tables(value, f'{title}: {_words(key)}' if title else key)


def format_value(value: Any) -> str:
    """A value as it is shown."""
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
    """Whether a cell is to be set flush right."""
    return bool(re.fullmatch(r'-|[-+]?[\d,.]+(e[-+]?\d+)?|nan|-?inf', text))


def _rows(data: Any) -> list[tuple[str, Mapping]] | None:
    """Name and content of each row; None of what has no rows."""
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
    """Path -> text of each scalar and short list."""
    found: dict[Path, str] = {}
    for key, value in row.items():
        path = (*prefix, str(key))
        if isinstance(value, Mapping):
            found |= _leaves(value, path)
        elif not isinstance(value, list) or _is_short(value):
            found[path] = format_value(value)
    return found


def _is_short(value: list) -> bool:
    return 0 < len(value) <= LISTED and not any(
        isinstance(entry, Mapping | list) for entry in value
    )


def _table(
    title: str, rows: Sequence[tuple[str, Mapping]], heads: Mapping[Path, str]
) -> Table | None:
    """The columns that a row has; None without any, but for the rows' names."""
    cells = [{(): name, **_leaves(row)} for name, row in rows]
    kept = [path for path in heads if any(path in row for row in cells)]
    if not any(kept):
        return None
    return Table(
        title,
        tuple(heads[path] for path in kept),
        tuple(tuple(row.get(path, '') for path in kept) for row in cells[:LONGEST]),
        max(len(cells) - LONGEST, 0),
    )


def _words(key: str) -> str:
    """A variable's name as words; anything else, such as a file's name, as it is."""
    return key.replace('_', ' ') if re.fullmatch('[a-z][a-z0-9_]*', key) else key
