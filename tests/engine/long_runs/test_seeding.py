import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import Dataset

from illama_seg.engine.long_runs.seeding import (
    Draw,
    SeededDataset,
    SeededSampler,
    seed_iteration,
)


def drawn():
    return random.random(), np.random.rand(), torch.rand(()).item()


class Numbers(Dataset):
    """What the generators give, and the index."""

    metainfo = dict(classes=('a',))

    def __len__(self):
        return 50

    def __getitem__(self, index):
        assert type(index) is int
        return index, *drawn()


def draw(index, *key):
    found = Draw(index)
    found.key = key
    return found


@given(st.integers(0, 2**40), st.integers(0, 2**31), st.integers(0, 99))
def test_random_numbers_of_an_iteration_depend_on_seed_and_iteration_only(
    seed, iteration, calls
):
    seed_iteration(seed, iteration)
    expected = drawn()
    for _ in range(calls % 5):
        drawn()
    seed_iteration(seed, iteration + 1)
    assert all(a != b for a, b in zip(drawn(), expected, strict=True))
    seed_iteration(seed, iteration)
    assert drawn() == expected


@given(st.tuples(*[st.integers(0, 1000)] * 3), st.integers(0, 2))
def test_a_sample_is_drawn_anew_for_each_seed_epoch_and_place(key, changed):
    dataset = SeededDataset(Numbers())
    first = dataset[draw(3, *key)]
    assert dataset[pickle.loads(pickle.dumps(draw(3, *key)))] == first
    other = list(key)
    other[changed] += 1
    assert dataset[draw(3, *other)][1] != first[1]
    assert dataset[draw(4, *key)][1:] == first[1:]


def test_a_sample_and_an_iteration_of_the_same_numbers_are_drawn_apart():
    seed_iteration(1, 2)
    assert drawn()[0] != SeededDataset(Numbers())[draw(0, 1, 2)][1]


def test_a_seeded_data_set_is_the_other_in_everything_else():
    dataset = pickle.loads(pickle.dumps(SeededDataset(Numbers())))
    assert dataset.metainfo == Numbers.metainfo and len(dataset) == 50
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018


@given(st.integers(0, 49), st.booleans(), st.integers(0, 5))
def test_skipping_gives_the_rest_of_the_same_order(skipped, endless, epoch):
    def sampler():
        inner = dict(type='InfiniteSampler' if endless else 'DefaultSampler')
        found = SeededSampler(inner, Numbers())
        found.use_seed(7)
        found.set_epoch(epoch)
        return found

    def first(sampler, count):
        return [(int(i), i.key) for i, _ in zip(sampler, range(count), strict=False)]

    whole, rest = sampler(), sampler()
    rest.skip(skipped)
    expected = first(whole, 50)
    assert first(rest, 50 - skipped) == expected[skipped:]
    assert [place for _, (*_, place) in expected] == list(range(50))
    # Of one pass only.
    assert first(rest, 50) == expected


def test_every_process_draws_its_share_of_the_same_order(monkeypatch):
    def sampler(rank, size):
        monkeypatch.setattr(
            'illama_seg.engine.long_runs.seeding.get_dist_info', lambda: (rank, size)
        )
        monkeypatch.setattr(
            'mmengine.dataset.sampler.get_dist_info', lambda: (rank, size)
        )
        found = SeededSampler(dict(type='DefaultSampler'), Numbers())
        found.use_seed(3)
        return [(int(index), index.key) for index in found]

    whole = sampler(0, 1)
    assert sampler(0, 2) == whole[0::2] and sampler(1, 2) == whole[1::2]


@pytest.mark.parametrize('type_', [DefaultSampler, InfiniteSampler])
def test_a_seed_of_the_config_stays(type_):
    sampler = SeededSampler(dict(type=type_, seed=5), Numbers(), seed=1)
    sampler.use_seed(2)
    assert sampler.sampler.seed == 5
    sampler = SeededSampler(dict(type=type_), Numbers(), seed=1)
    sampler.use_seed(2)
    assert sampler.sampler.seed == 2
