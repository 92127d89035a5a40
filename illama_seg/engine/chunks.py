"""Draw the rows of a chunk anew in every iteration: one model for every latency."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from illama_seg.errors import UserError


@HOOKS.register_module()
class ChunkRowsHook(Hook):
    """Train a backbone of the mask 'chunked' with chunks of any of several heights.

    The draw is a function of the seed and the iteration alone: a resumed run and all
    processes have the same one. Validation, tests and the trained model have the
    config's ``chunk_rows``.

    Args:
        choices: rows of patches of a chunk, None for all; each is as likely.
        seed: of the draws.

    Raises:
        UserError: if there are no choices, or (when training starts) the model has no
            backbone with this mask.
    """

    def __init__(self, choices: Sequence[int | None], seed: int = 0) -> None:
        listed = isinstance(choices, Sequence) and len(choices) > 0
        if not listed or any(
            rows is not None and (type(rows) is not int or rows < 1) for rows in choices
        ):
            raise UserError(
                f'ChunkRowsHook choices={choices}: expected numbers of rows from 1 on, '
                'and None for all'
            )
        self.choices, self.seed = tuple(choices), seed
        self._own: int | None = None

    def rows_at(self, iteration: int) -> int | None:
        """Rows of a chunk in an iteration, counted from 0."""
        return random.Random(f'{self.seed} {iteration}').choice(self.choices)

    def before_train(self, runner: Runner) -> None:
        """Learn the config's rows."""
        self._own = next(_chunked(runner)).chunk_rows

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Set the rows of an iteration."""
        self._set(runner, self.rows_at(runner.iter))

    def before_val(self, runner: Runner) -> None:
        """Validate with the config's rows."""
        self._set(runner, self._own)

    def after_train(self, runner: Runner) -> None:
        """Leave the config's rows behind."""
        self._set(runner, self._own)

    def _set(self, runner: Runner, rows: int | None) -> None:
        for module in _chunked(runner):
            module.set_chunk_rows(rows)


def _chunked(runner: Runner) -> Iterator[Any]:
    """Backbones of the mask 'chunked': in the model, however wrapped."""
    found = [
        module
        for module in runner.model.modules()
        if getattr(module, 'attn_mask', '') == 'chunked'
        and hasattr(module, 'set_chunk_rows')
    ]
    if not found:
        raise UserError(
            "ChunkRowsHook: no backbone has the mask 'chunked'; set model.backbone."
            "attn_mask='chunked', or take the hook out of custom_hooks"
        )
    yield from found
