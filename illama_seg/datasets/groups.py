"""Unite the classes of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from illama_seg.datasets.annotations import IGNORED
from illama_seg.errors import UserError


def grouped(
    meta: Mapping, groups: Mapping[str, Sequence[str]], num_ids: int
) -> dict[str, Any]:
    """Return the metadata of a data set whose classes are united.

    Args:
        meta: of the data set.
        groups: name of a new class -> names of classes.
        num_ids: number of classes in the files, of which ``meta`` may have some.

    Returns:
        ``classes``, ``palette`` (the first of each group) and ``label_map``.

    Raises:
        UserError: if a group is no list of names, names no class, or one twice.
    """
    classes = list(meta.get('classes') or ())
    if not isinstance(groups, Mapping) or not groups:
        raise UserError(
            f'groups={groups}: expected a dict of new classes, '
            "such as dict(ground=['road', 'sidewalk'])"
        )
    numbers: dict[str, int] = {}
    for number, (group, names) in enumerate(groups.items()):
        if not names or not isinstance(names, list | tuple):
            raise UserError(
                f'groups.{group}={names!r}: expected a list of names of classes'
            )
        for name in names:
            if name not in classes or name in numbers:
                found = 'is named twice' if name in numbers else 'is no class'
                raise UserError(
                    f'groups.{group}: {name!r} {found}, expected each once at most of '
                    f'{", ".join(classes)}'
                )
            numbers[name] = number
    # A data set of some of its classes has their numbers in label_map.
    before = meta.get('label_map') or {}
    label_map = dict(before)
    for old in range(num_ids):
        number = before.get(old, old)
        name = classes[number] if number < len(classes) else ''
        label_map[old] = numbers.get(name, IGNORED)
    palette = [meta['palette'][classes.index(names[0])] for names in groups.values()]
    return dict(classes=tuple(groups), palette=palette, label_map=label_map)
