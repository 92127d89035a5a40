"""Errors found in data sets, and tables of their classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prettytable import PrettyTable

_SHOWN = 3


@dataclass
class Finding:
    """One kind of error in a data set, and all files that have it.

    Attributes:
        kind: a few words.
        split: split of the data set.
        messages: message for each file, or for the data set.
        files: paths of the wrong files.
        level: 'fault', or 'warning' for what may be intended.
    """

    kind: str
    split: str
    messages: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    level: str = 'fault'

    def __str__(self) -> str:
        """Return the first messages and the number of the others."""
        many = f' ({len(self.messages):,} times)' if len(self.messages) > 1 else ''
        lines = [f'{self.level}: {self.split}: {self.kind}{many}']
        lines += [f'  {message}' for message in self.messages[:_SHOWN]]
        if len(self.messages) > _SHOWN:
            lines.append(f'  ... and {len(self.messages) - _SHOWN:,} more')
        return '\n'.join(lines)


class Findings:
    """Findings of several splits, grouped by kind."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Finding] = {}

    def add(
        self, split: str, kind: str, message: str, file: str = '', level: str = 'fault'
    ) -> None:
        """Add a message to the finding of its kind."""
        fresh = Finding(kind, split, level=level)
        finding = self._found.setdefault((split, kind), fresh)
        finding.messages.append(message)
        if file:
            finding.files.append(file)

    def sorted(self) -> list[Finding]:
        """Return faults, then warnings, each in the order of discovery."""
        return sorted(self._found.values(), key=lambda found: found.level != 'fault')


def class_table(
    classes: Iterable[str], splits: Mapping[str, Mapping[str, tuple[float, int]]]
) -> str:
    """Return a table of each class's share of the pixels and number of images."""
    names = list(classes)
    table = PrettyTable()
    table.add_column('class', [name.strip() for name in names], align='l')
    for split, found in splits.items():
        rows = [found.get(name, (0.0, 0)) for name in names]
        shares = [f'{100 * share:.3f}' for share, _ in rows]
        table.add_column(f'{split} %', shares, align='r')
        table.add_column(f'{split} images', [images for _, images in rows], align='r')
    return table.get_string()
