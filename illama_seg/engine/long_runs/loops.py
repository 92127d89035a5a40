"""Training loops that resume at any iteration, with equal results."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from illama_seg.engine.long_runs.accumulation import accumulate
from illama_seg.engine.long_runs.corrupt import CorruptImagesHook
from illama_seg.engine.long_runs.seeding import SeededSampler, seed_iteration


def seeded(dataloader: dict, skip_corrupt: bool = False) -> dict:
    """Return the config of a data loader whose samples are drawn by their places."""
    sampler = dataloader['sampler']
    if not isinstance(sampler, dict) or sampler.get('type') != 'SeededSampler':
        sampler = dict(type='SeededSampler', sampler=sampler)
    dataset = dict(
        type='SeededDataset', dataset=dataloader['dataset'], skip_corrupt=skip_corrupt
    )
    return dict(dataloader, dataset=dataset, sampler=sampler)


class _Resumable:
    """Seeds, effective batch, and a data loader that starts anywhere.

    Reads ``effective_batch`` of the runner's config, see ``accumulate``. Samples come
    from a :class:`SeededSampler` and a :class:`SeededDataset` around the config's.
    """

    runner: Runner
    dataloader: DataLoader
    _iter: int

    def __init__(self, runner: Runner, dataloader: Any, **kwargs: Any) -> None:
        if isinstance(dataloader, dict):
            accumulate(runner, dataloader)
            skip_corrupt = any(
                isinstance(hook, CorruptImagesHook) and hook.limit > 0
                for hook in runner.hooks
            )
            dataloader = seeded(dataloader, skip_corrupt)
        super().__init__(runner, dataloader, **kwargs)  # type: ignore[call-arg]

    def run(self) -> Any:
        """Launch training."""
        sampler = _seeded_sampler(self.dataloader)
        if sampler is not None:
            sampler.use_seed(common_seed(self.runner))
        return super().run()  # type: ignore[misc]

    def run_iter(self, *args: Any, **kwargs: Any) -> None:
        """Iterate one batch."""
        seed_iteration(self.runner.seed, self._iter)
        super().run_iter(*args, **kwargs)  # type: ignore[misc]


@LOOPS.register_module()
class ResumableIterTrainLoop(_Resumable, IterBasedTrainLoop):
    """``IterBasedTrainLoop``; samples and random numbers depend on the place only.

    Attributes:
        place: to go on from: passes over the data that are done, and images of the next
            one, by all processes; None where only the iterations are known.
    """

    place: tuple[int, int] | None = None

    def __init__(self, runner: Runner, dataloader: Any, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, **kwargs)
        self.dataloader_iterator = self._stream()

    def _stream(self) -> _Stream:
        return _Stream(self.dataloader, self.runner.world_size)

    def run(self) -> Any:
        """Launch training."""
        self.dataloader_iterator.resumed = self.place
        try:
            return super().run()
        finally:
            # Or the workers are waited for when the garbage is collected: 5 s each.
            self.dataloader_iterator = self._stream()


@LOOPS.register_module()
class ResumableEpochTrainLoop(_Resumable, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop``, likewise; it goes on in the middle of an epoch.

    Attributes:
        images_done: of the epoch, by all processes, before it was interrupted; None
            where only the iterations are known.
    """

    images_done: int | None = None

    @property
    def batch_of_epoch(self) -> int:
        """Batches of this epoch that are done."""
        return self._iter - self._epoch * len(self.dataloader)

    def run(self) -> torch.nn.Module:
        """Launch training."""
        length, before = len(self.dataloader), self._iter
        done = self.batch_of_epoch
        if self.images_done is not None:
            # Another number of processes or images to each is another number of
            # iterations.
            done = self.images_done // images_of_batch(self.runner, self.dataloader)
        self._iter = self._epoch * length + (done if 0 <= done <= length else 0)
        if self._iter != before:
            print_log(
                f'iteration {before:,} of the run that is resumed is iteration '
                f'{self._iter:,} with {length:,} iterations to an epoch',
                logger='current',
            )
            self.runner.optim_wrapper.initialize_count_status(
                self.runner.model, self._iter, self._max_iters
            )
        return super().run()

    def run_epoch(self) -> None:
        """Iterate one epoch, or what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self.batch_of_epoch
        images = start * _images_of_process(self.dataloader)
        for index, batch in enumerate(_batches_from(self.dataloader, images), start):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class _Stream:
    """Batches without end; the first is loaded when it is asked for.

    Attributes:
        place: passes that are done, and images of this one, by all processes.
        resumed: the place to go to; None for that of the iteration.
    """

    def __init__(self, dataloader: DataLoader, world_size: int) -> None:
        self._dataloader, self._batches = dataloader, None
        self._world_size = world_size
        sampler = _seeded_sampler(dataloader)
        self._endless = isinstance(getattr(sampler, 'sampler', None), InfiniteSampler)
        self.place = 0, 0
        self.resumed: tuple[int, int] | None = None

    def skip_iter(self, num_iters: int) -> None:
        """Go to a batch, counted from the first of all."""
        epoch = 0
        if not self._endless:
            epoch, num_iters = divmod(num_iters, len(self._dataloader))
        self._begin(*(self.resumed or (epoch, num_iters * self._images)))

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._begin(0, 0)
        try:
            batch = next(self._batches)  # type: ignore[call-overload]
        except StopIteration:
            self._begin(self.place[0] + 1, 0)
            batch = next(self._batches)  # type: ignore[call-overload]
        self.place = self.place[0], self.place[1] + self._images
        return batch

    @property
    def _images(self) -> int:
        """Images of a batch of all processes."""
        return self._world_size * _images_of_process(self._dataloader)

    def _begin(self, epoch: int, images: int) -> None:
        self.place = epoch, images
        sampler = _seeded_sampler(self._dataloader)
        if sampler is not None:
            sampler.set_epoch(epoch)
        self._batches = _batches_from(self._dataloader, images // self._world_size)


def _batches_from(dataloader: DataLoader, images: int) -> Any:
    """Batches of one epoch, skipping the first ``images`` samples of this rank."""
    sampler = _seeded_sampler(dataloader)
    if images and sampler is not None and dataloader.batch_size is not None:
        sampler.skip(images)
        images = 0
    batches = iter(dataloader)
    start = images // _images_of_process(dataloader)
    if start:
        print_log(
            f'{type(dataloader.batch_sampler).__name__} tells nothing of its batches: '
            f'{start:,} are loaded to find the place to go on from',
            logger='current',
            level=30,
        )
        for _ in range(start):
            next(batches, None)
    return batches


def _seeded_sampler(dataloader: DataLoader) -> SeededSampler | None:
    sampler: Any = dataloader.sampler
    if not isinstance(sampler, SeededSampler):
        sampler = getattr(dataloader.batch_sampler, 'sampler', None)
    return sampler if isinstance(sampler, SeededSampler) else None


def images_of_batch(runner: Runner, dataloader: DataLoader) -> int:
    """Images of a batch of all processes."""
    return runner.world_size * _images_of_process(dataloader)


def _images_of_process(dataloader: DataLoader) -> int:
    size: Any = dataloader.batch_size  # None where a batch sampler was given
    return int(size or getattr(dataloader.batch_sampler, 'batch_size', 1))


def common_seed(runner: Runner) -> int:
    """The run's seed, the same in all processes, whether drawn, given or resumed."""
    if runner._randomness_cfg.get('diff_rank_seed', False):
        return runner.seed - runner.rank
    return runner.seed
