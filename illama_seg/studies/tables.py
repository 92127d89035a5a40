"""Tables of results, and the sections of the report that show them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from prettytable import PrettyTable


class _Cells(Formatter):
    """Formatter of cells: None is '-'."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return '-' if value is None else super().format_field(value, format_spec)


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

    @staticmethod
    def of(
        rows: Iterable[Mapping], columns: Mapping[str, str], title='', note=''
    ) -> 'Table':
        """Format rows by a template for each column: ``{'top-1, %': '{top1:.1f}'}``."""
        cells = [
            [_Cells().vformat(template, (), row) for template in columns.values()]
            for row in rows
        ]
        return Table(list(columns), cells, title, note)

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


@dataclass(frozen=True)
class Section:
    """A heading of the report: a JSON file with its tables, and images beside it.

    Attributes:
        title: heading.
        files: pattern of the JSON file's name, in any folder of the run.
        about: sentence on what is shown.
        command: command that makes the file, with {config}, {checkpoint} and {run}.
        kind: kind of the models that it measures; '' for all.
        images: name of an image file beside the JSON file -> its description; by
            default the PNG with the JSON file's name.
    """

    title: str
    files: str
    about: str = ''
    command: str = ''
    kind: str = ''
    images: Mapping[str, str] = field(default_factory=dict)
