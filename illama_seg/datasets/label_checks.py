"""Checks of the labels of whole data sets: zero label, class names, equal images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from illama_seg.datasets.annotations import IGNORED
from illama_seg.datasets.findings import Findings
from illama_seg.datasets.inspection import CheckedSplit, Facts

_NAMED = 12  # classes listed in a message


def is_wrong(label: int, table: np.ndarray, num_classes: int) -> bool:
    if not 0 <= label <= 255:
        return True
    return table[label] != IGNORED and table[label] >= num_classes


def check_twin(
    facts: Facts, split: str, seen: dict[str, tuple[str, str]], findings: Findings
) -> None:
    if not facts.digest:
        return
    other, path = seen.setdefault(facts.digest, (split, facts.image))
    if path == facts.image and other == split:
        return
    text = f'{facts.image} is {path}, byte for byte'
    if other != split:
        text += f': it is scored on what was learnt. Remove it from {other} or {split}'
        findings.add(
            f'{other} and {split}', 'the same image in both', text, facts.image
        )
    else:
        findings.add(split, 'the same image twice', text, facts.image, level='warning')


def check_zero_label(splits: dict[str, CheckedSplit], findings: Findings) -> None:
    """Check ``reduce_zero_label`` against the labels of all splits together."""
    groups: dict[bool, list[CheckedSplit]] = {}
    for split in splits.values():
        groups.setdefault(split.reduce_zero_label, []).append(split)
    if len(groups) > 1:
        text = ', '.join(
            f'{s.name}_dataloader.dataset.reduce_zero_label={s.reduce_zero_label}'
            for s in splits.values()
        )
        name = ' and '.join(splits)
        findings.add(name, 'reduce_zero_label', f'{text}: expected the same of each')
    for members in groups.values():
        name = ' and '.join(split.name for split in members)
        labels = sum((split.labels for split in members), Counter())
        labels.pop(IGNORED, None)
        if labels and members[0].classes:
            wrong = set().union(*(split.wrong for split in members))
            _ask_zero_label(name, members[0], labels, wrong, findings)


def _ask_zero_label(
    name: str,
    split: CheckedSplit,
    labels: Counter[int],
    wrong: set[int],
    findings: Findings,
) -> None:
    reduced = split.reduce_zero_label
    last, first = split.num_labels, split.classes[0].strip()

    def share(label: int) -> str:
        return f'{100 * labels[label] / labels.total():.2g} % of the pixels'

    zero = share(0)
    cure = f'reduce_zero_label={not reduced}'
    cure = ' '.join(
        f'{part}_dataloader.dataset.{cure}' for part in ('train', 'val', 'test')
    )
    if not reduced and max(wrong, default=0) == last:
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {span(labels)}, with {last} classes, which are 0..'
            f'{last - 1}. Either they count from 1, and 0 ({zero}) is none of them: '
            f'with reduce_zero_label=False 0 is learnt as {first!r} and each class as '
            f'the next one; set {cure}. Or {last} ({share(last)}) means not annotated, '
            'or is a mistake: write 255 for it. Look at an annotation to tell',
        )
    elif not reduced and 0 not in labels and split.num_labels == len(split.classes):
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {span(labels)}: no pixel is 0, {first!r}. If '
            f'they count from 1, set {cure}',
            level='warning',
        )
    elif reduced and 0 in labels and last not in labels:
        lacking = sum(n not in labels for n in range(1, last))
        if lacking > last // 2:  # too few classes occur to tell
            return
        findings.add(
            name,
            'reduce_zero_label',
            f'the labels are {span(labels)}, with {last} classes: they seem to '
            f'count from 0. With reduce_zero_label=True label 0 ({zero}) is ignored, '
            f'{first!r} is learnt from label 1 and the last class never. If 0 is a '
            f'class, set {cure}. If 0 means not annotated, and {last} only happens '
            'to be absent, all is well',
            level='warning' if lacking else 'fault',
        )


def span(labels: Mapping[int, int]) -> str:
    known = sorted(n for n in labels if n != IGNORED)
    if not known:
        return 'only 255'
    complete = len(known) == known[-1] - known[0] + 1
    shown = f'{known[0]}..{known[-1]}' if len(known) > 1 else f'{known[0]}'
    return shown if complete else f'{shown} ({len(known)} of them)'


def check_classes(splits: dict[str, CheckedSplit], findings: Findings) -> None:
    train, others = splits.get('train'), [s for n, s in splits.items() if n != 'train']
    if train and len(train.classes) > 1 and {*train.labels} == {0, IGNORED}:
        findings.add(
            train.name,
            'every label but 0 is ignored',
            f'the only labels are 0 and {IGNORED}, and {IGNORED} is ignored: write 1 '
            f'for the object, {train.classes[1].strip()!r}',
        )
    for split in splits.values():
        lacking = {n for n in range(len(split.classes)) if not split.images[n]}
        tested = {n for n in lacking if any(other.images[n] for other in others)}
        if split is train and tested:
            findings.add(
                split.name,
                'class never seen',
                f'{_names(split, tested)}: in no annotation of train, but in val, '
                'where it is scored. Add images of it, or leave the class out of '
                'metainfo',
            )
        if rest := lacking - (tested if split is train else set()):
            effect = 'cannot be learnt' if split is train else 'is not scored'
            findings.add(
                split.name,
                'class absent',
                f'{_names(split, rest)}: in no annotation of {split.name}; it {effect}',
                level='warning',
            )


def _names(split: CheckedSplit, numbers: set[int]) -> str:
    names = [f'{split.classes[n].strip()} ({n})' for n in sorted(numbers)]
    more = f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''
    return ', '.join(names[:_NAMED]) + more
