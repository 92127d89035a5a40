"""Sections that studies add to the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Section:
    """A heading of the page: a JSON file with its tables, and images beside it.

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
