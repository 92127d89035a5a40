"""Randomness as a function of the place in the training, not of what ran before.

A sample's augmentation is drawn from (seed, epoch, place in the epoch), everything else
from (seed, iteration). So a resumed run goes on as if nothing had happened, whatever
loaded, validated or died meanwhile; the number of loader workers plays no part; and no
state of a generator has to be kept.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Dataset, Sampler

# Beside places in an epoch, what seeds are drawn for.
_SAMPLE, _ITERATION = 0, 1


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed Python, numpy and torch, on the CPU and the GPU, for an iteration."""
    number = _seed_cpu(_ITERATION, seed, iteration)
    # torch.manual_seed formats a traceback where there is no GPU: half a millisecond.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(number)


def seed_sample(*key: int) -> None:
    """Seed Python, numpy and torch on the CPU for what is drawn for a sample."""
    _seed_cpu(_SAMPLE, *key)


def _seed_cpu(*key: int) -> int:
    """Seed the CPU's generators; return the seed given to torch's."""
    words = np.random.SeedSequence(key).generate_state(4).tolist()
    random.seed(words[0])
    np.random.seed(words[1])
    number = words[2] << 31 | words[3] >> 1  # torch's seeds are of 64 bits, signed
    torch.default_generator.manual_seed(number)
    return number


class Draw(int):
    """Index of a sample; ``key`` says which draw of it this is: seed, epoch, place."""

    key: tuple[int, ...]


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Another sampler's indices, as :class:`Draw`, from any place on.

    Args:
        sampler: config of the other sampler, or the sampler.
        dataset: what it samples from; the data loader's builder passes it.
        seed: of the order, for a sampler that has none of its own in its config. It
            is the run's where a run was resumed: ``use_seed``.
    """

    def __init__(
        self, sampler: dict | Sampler, dataset: Any, seed: int | None = None
    ) -> None:
        self._has_seed = isinstance(sampler, dict) and sampler.get('seed') is not None
        self.sampler: Any = sampler
        if isinstance(sampler, dict):
            given = dict(dataset=dataset, seed=seed)
            self.sampler = DATA_SAMPLERS.build(sampler, default_args=given)
        self.dataset = dataset
        self.epoch, self._start, self._seed = 0, 0, 0
        self.rank, self.world_size = get_dist_info()

    def use_seed(self, seed: int) -> None:
        """Seed of the order and of the draws, the same in all processes."""
        self._seed = seed
        if not self._has_seed and hasattr(self.sampler, 'seed'):
            self.sampler.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Another order each epoch."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def skip(self, num_samples: int) -> None:
        """Begin the next pass, and that one only, after so many of this process."""
        self._start = num_samples

    def __iter__(self) -> Iterator[Draw]:
        start, self._start = self._start, 0
        if hasattr(self.sampler, 'skip'):  # an endless one would go on where it was
            self.sampler.skip(start)
            indices = iter(self.sampler)
        else:
            indices = islice(iter(self.sampler), start, None)
        for place, index in enumerate(indices, start):
            draw = Draw(index)
            draw.key = self._seed, self.epoch, place * self.world_size + self.rank
            yield draw

    def __len__(self) -> int:
        return len(self.sampler)


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Another data set, whose samples are augmented as their :class:`Draw` says.

    Everything else is the other's: ``metainfo``, ``data_prefix``, ...

    Args:
        dataset: config of the other data set, or the data set.
        skip_corrupt: put another sample in the place of one that cannot be read. The
            annotation that takes its place says so: its metainfo ``skipped`` holds the
            errors. Other samples than mmengine's data elements cannot be replaced.
    """

    NUM_TRIES = 10

    def __init__(self, dataset: dict | Dataset, skip_corrupt: bool = False) -> None:
        self.dataset: Any = dataset
        if isinstance(dataset, dict):
            self.dataset = DATASETS.build(dataset)
        self.skip_corrupt = skip_corrupt

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:
            raise AttributeError(name)  # while it is unpickled
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        key = getattr(index, 'key', None)
        if key is not None:
            seed_sample(*key)
        if not self.skip_corrupt:
            return self.dataset[int(index)]
        errors: list[str] = []
        while True:
            try:
                item = self.dataset[int(index)]
                break
            except Exception as error:  # a damaged file may raise anything
                errors.append(str(error))
                if len(errors) == self.NUM_TRIES:
                    raise
            # After a seed of its own: an error may come after any number of draws.
            seed_sample(*(key or (0,)), len(errors))
            index = random.randrange(len(self.dataset))
        if errors:
            item['data_samples'].set_metainfo(dict(skipped=tuple(errors)))
        return item
