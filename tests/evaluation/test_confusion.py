import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from mmseg.evaluation import IoUMetric

from illama_seg.evaluation import ConfusionMatrix

NUM_CLASSES = 5
CLASSES = tuple('abcde')
sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 2**32 - 1)


def draw(seed, size, num_images=3):
    """Labels with ignored pixels, and guesses; classes may be missing in both."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice([*range(NUM_CLASSES), 255], rng.integers(1, NUM_CLASSES + 2))
    for _ in range(num_images):
        guess = rng.integers(0, rng.integers(1, NUM_CLASSES + 1), size)
        yield rng.choice(kinds, size).astype(np.uint8), guess.astype(np.uint8)


def counted(pairs):
    matrix = ConfusionMatrix(CLASSES)
    for label, guess in pairs:
        matrix.update(label, guess)
    return matrix


def brute_force(pairs):
    """IoU and accuracy of each class, a pixel at a time."""
    pixels = [
        (int(truth), int(guess))
        for label, prediction in pairs
        for truth, guess in zip(label.flat, prediction.flat, strict=True)
        if truth != 255
    ]
    for number in range(NUM_CLASSES):
        hits = sum(pixel == (number, number) for pixel in pixels)
        union = sum(number in pixel for pixel in pixels)
        total = sum(truth == number for truth, _ in pixels)
        yield hits / union if union else np.nan, hits / total if total else np.nan


@settings(max_examples=50, deadline=None)
@given(seeds, sizes)
def test_iou_and_accuracy_are_those_counted_by_hand(seed, size):
    pairs = list(draw(seed, size))
    matrix = counted(pairs)
    iou, accuracy = zip(*brute_force(pairs), strict=True)
    np.testing.assert_allclose(matrix.iou, iou, rtol=1e-12)
    np.testing.assert_allclose(matrix.accuracy, accuracy, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seeds, sizes)
def test_the_figures_are_those_of_mmseg(seed, size):
    pairs = list(draw(seed, size))
    parts = [
        IoUMetric.intersect_and_union(
            torch.tensor(guess), torch.tensor(label), NUM_CLASSES, 255
        )
        for label, guess in pairs
    ]
    areas = [sum(area) for area in zip(*parts, strict=True)]
    theirs = IoUMetric.total_area_to_metrics(*areas, ['mIoU'])
    matrix = counted(pairs)
    np.testing.assert_allclose(matrix.iou, theirs['IoU'], rtol=1e-6)
    np.testing.assert_allclose(matrix.accuracy, theirs['Acc'], rtol=1e-6)
    if not matrix.counts.any():
        return
    summary = matrix.summary()
    assert summary['mIoU'] == pytest.approx(100 * np.nanmean(theirs['IoU']), rel=1e-6)
    assert summary['mAcc'] == pytest.approx(100 * np.nanmean(theirs['Acc']), rel=1e-6)
    assert summary['aAcc'] == pytest.approx(100 * float(theirs['aAcc']), rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(seeds, sizes)
def test_images_one_by_one_count_as_all_at_once(seed, size):
    pairs = list(draw(seed, size))
    labels, guesses = map(np.concatenate, zip(*pairs, strict=True))
    at_once = counted([(labels, guesses)])
    np.testing.assert_array_equal(counted(pairs).counts, at_once.counts)


def test_ignored_pixels_do_not_count_whatever_is_predicted_there():
    label = np.array([[0, 1, 255, 255]], np.uint8)
    matrix = counted([(label, np.array([[0, 1, 2, 99]], np.uint8))])
    assert matrix.counts.sum() == 2
    assert matrix.summary()['mIoU'] == 100
    assert list(matrix.summary()['classes']) == ['a', 'b']


def test_another_label_can_be_the_ignored_one():
    matrix = ConfusionMatrix(CLASSES, ignore_index=0)
    matrix.update(np.array([[0, 1]]), np.array([[1, 1]]))
    assert matrix.counts.sum() == 1


def test_a_class_predicted_but_never_annotated_counts_as_zero_iou():
    matrix = counted([(np.array([[0, 0]], np.uint8), np.array([[0, 1]], np.uint8))])
    summary = matrix.summary()
    assert summary['mIoU'] == 25 and summary['mAcc'] == 50
    assert summary['classes']['b'] == {'IoU': 0, 'Acc': None}


@pytest.mark.parametrize('pairs', [[], [(np.full((2, 2), 255), np.zeros((2, 2), int))]])
def test_nothing_counted_is_zero_and_not_an_error(pairs):
    summary = counted(pairs).summary()
    assert (summary['mIoU'], summary['mAcc'], summary['aAcc']) == (0, 0, 0)
    assert summary['classes'] == {}


@pytest.mark.parametrize(
    ('label', 'guess', 'text'),
    [
        ([[0, 1]], [[0], [1]], 'differ in shape'),
        ([[0, 7]], [[0, 0]], 'class number 7'),
        ([[0, 0]], [[0, 5]], 'class number 5'),
        ([[0, 0]], [[0, -1]], r'expected 0..4'),
    ],
)
def test_what_cannot_be_counted_is_refused(label, guess, text):
    with pytest.raises(ValueError, match=text):
        counted([(np.array(label), np.array(guess))])


def test_a_prediction_in_floats_counts_as_its_class_numbers():
    """Heads of one channel predict so."""
    matrix = ConfusionMatrix(['a', 'b'])
    matrix.update(np.array([[0, 1]]), np.array([[0.0, 1.0]], np.float32))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize('value', [0.5, np.nan, np.inf])
def test_a_prediction_with_a_fraction_is_refused(value):
    matrix = ConfusionMatrix(['a', 'b'])
    with pytest.raises(ValueError, match=f'class number {value}: expected an integer'):
        matrix.update(np.array([[0, 1]]), np.array([[0.0, value]]))
    assert not matrix.counts.any()
