"""Checks that data sets, classifier and accuracy have the same classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from illama_seg.errors import UserError


def check_topk(option: str, evaluator: object, num_classes: int) -> None:
    """Compare the k of an accuracy with the classes, before anything is trained.

    Args:
        option: name of the evaluator, such as 'val_evaluator'.
        evaluator: its config, or a list of them.
        num_classes: outputs of the head.

    Raises:
        UserError: names the option, the k and the number of classes.
    """
    for metric in evaluator if isinstance(evaluator, Sequence) else [evaluator]:
        topk = metric.get('topk', ()) if isinstance(metric, Mapping) else ()
        largest = max([topk] if isinstance(topk, int) else topk, default=0)
        if largest > num_classes:
            raise UserError(
                f'{option}.topk={topk}, but there are {num_classes} classes: '
                f'set {option}.topk=1'
            )


def check_classes(num_classes: int, classes: Mapping[str, Sequence[str]]) -> None:
    """Compare the classes of the splits with each other and with the head.

    Args:
        num_classes: outputs of the head.
        classes: split ('train', 'val', 'test') -> names of its classes, in order.

    Raises:
        UserError: names the splits and the first class that differs, or the option.
    """
    (first, names), *others = classes.items()
    for split, found in others:
        if tuple(found) == tuple(names):
            continue
        differing = [
            name for name in (*names, *found) if (name in names) != (name in found)
        ]
        raise UserError(
            f'{split} data has {len(found)} classes, {first} data {len(names)}, and '
            + (
                f'they differ, first in {differing[0]!r}'
                if differing
                else 'their order differs'
            )
            + '. Expected the same classes: the same class folders in both, or one '
            'class_index for both'
        )
    if len(names) != num_classes:
        raise UserError(
            f'model.head.num_classes={num_classes}, but the {first} data has '
            f'{len(names)} classes: set model.head.num_classes={len(names)}'
        )
