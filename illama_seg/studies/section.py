"""What a study adds to the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Columns = Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """A measurement: the JSON that its tool writes, with pictures beside it.

    Attributes:
        title: heading.
        files: pattern of the JSON's name, in any folder of the run.
        about: a sentence on what is shown.
        command: that makes it, with {config}, {checkpoint} and {run}.
        kind: of the models that it measures; '' for all.
        pictures: name of a file beside the JSON -> its description. Without any, the
            PNG of the JSON's name, if there is one.
        facts: dotted key -> name, of the JSON's own scalars.
        tables: dotted path of rows -> their columns. Without facts and tables all that
            fits into tables is shown.
    """

    title: str
    files: str
    about: str = ''
    command: str = ''
    kind: str = ''
    pictures: Mapping[str, str] = field(default_factory=dict)
    facts: Columns = field(default_factory=dict)
    tables: Mapping[str, Columns] = field(default_factory=dict)
