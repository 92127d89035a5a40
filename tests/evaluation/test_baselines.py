import numpy as np
import pytest

from illama_seg.evaluation import colour_baseline, position_baseline

CLASSES = ('red', 'blue')
RED, BLUE = np.array([10, 10, 240], np.uint8), np.array([240, 10, 10], np.uint8)


def paint(labels):
    """Each class in its own colour."""
    return np.where((labels == 0)[..., None], RED, BLUE), labels


@pytest.fixture
def scattered():
    """Labels anywhere: their colour tells all, their place nothing."""
    rng = np.random.default_rng(0)
    return [paint(rng.integers(0, 2, (24, 32))) for _ in range(8)]


@pytest.fixture
def placed():
    """The left half is always of one class, in colours that tell nothing."""
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(64) >= 32, (48, 1)).astype(np.uint8)
    return [(rng.integers(0, 256, (48, 64, 3), np.uint8), labels) for _ in range(4)]


def test_colour_alone_solves_classes_of_one_colour_each(scattered):
    result = colour_baseline(scattered[:4], scattered[4:], CLASSES)
    assert result['mIoU'] == 100


def test_colour_alone_is_no_better_than_chance_where_colour_tells_nothing(placed):
    result = colour_baseline(placed[:2], placed[2:], CLASSES, bins=4)
    assert result['aAcc'] < 60


def test_place_alone_solves_classes_that_keep_their_place(placed):
    result = position_baseline(placed[:2], placed[2:], CLASSES, grid=16)
    assert result['mIoU'] == 100


def test_place_alone_is_no_better_than_chance_where_place_tells_nothing(scattered):
    result = position_baseline(scattered[:4], scattered[4:], CLASSES)
    assert result['aAcc'] < 60


def test_the_most_frequent_class_wins_a_colour():
    train = [(np.full((1, 3, 3), 50, np.uint8), np.array([[1, 1, 0]]))]
    val = [(np.full((1, 4, 3), 50, np.uint8), np.array([[1, 1, 1, 0]]))]
    result = colour_baseline(train, val, CLASSES)
    assert result['aAcc'] == 75 and result['classes']['blue']['IoU'] == 75


def test_colours_apart_by_less_than_a_cell_are_one():
    train = [(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8), np.array([[0, 1]]))]
    val = [(np.array([[[127] * 3, [128] * 3]], np.uint8), np.array([[0, 1]]))]
    assert colour_baseline(train, val, CLASSES, bins=2)['mIoU'] == 100


def test_ignored_pixels_neither_vote_nor_count():
    colour = np.full((4, 4, 3), 50, np.uint8)
    labels = np.full((4, 4), 255)
    labels[0, 0] = 1
    for baseline in (colour_baseline, position_baseline):
        result = baseline([(colour, labels)], [(colour, labels)], CLASSES)
        assert result['aAcc'] == 100 and list(result['classes']) == ['blue']


def test_images_of_any_size_share_the_places():
    def halves(height, width):
        labels = np.tile(np.arange(width) * 2 >= width, (height, 1)).astype(np.uint8)
        return np.zeros((height, width, 3), np.uint8), labels

    result = position_baseline([halves(32, 64)], [halves(64, 32)], CLASSES, grid=8)
    assert result['mIoU'] == 100
