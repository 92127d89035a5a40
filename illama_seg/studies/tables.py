"""Tables of results: one form for the terminal, the JSON files and the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prettytable import PrettyTable


@dataclass(frozen=True)
class Table:
    """A table of text; a study's JSON file has its tables under ``tables``.

    Attributes:
        columns: heads of the columns; none in a table of names and values.
        rows: text of the cells, one for each column.
        title: line above the table.
        note: line below the table.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ''
    note: str = ''

    def __str__(self) -> str:
        table = PrettyTable(self.columns, align='r')
        table.header = bool(self.columns)
        table.add_rows(list(map(list, self.rows)))
        for place, name in enumerate(table.field_names):
            cells = [row[place] for row in self.rows if self.columns]
            if not any(re.match(r'[-+]?\d', cell) for cell in cells):
                table.align[name] = 'l'
        lines = (self.title, table.get_string(), self.note)
        return '\n'.join(line for line in lines if line)


def as_text(tables: Sequence[Table]) -> str:
    """Join tables for the terminal."""
    return '\n'.join(map(str, tables))
