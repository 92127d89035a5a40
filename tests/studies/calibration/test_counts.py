import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.classification import MulticlassCalibrationError

from illama_seg.studies.calibration.counts import CalibrationCounts, fit_temperature

NUM_CLASSES = 4
CLASSES = tuple('abcd')
seeds = st.integers(0, 2**32 - 1)


def draw(seed, num_samples=60, sharpness=3.0):
    """Logits, and labels that are right more often than not."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(num_samples, NUM_CLASSES, generator=generator)
    labels = torch.randint(NUM_CLASSES, (num_samples,), generator=generator)
    right = torch.rand(num_samples, generator=generator) < 0.6
    return logits, torch.where(right, logits.argmax(1), labels)


def counted(logits, labels, num_bins=15, **options):
    counts = CalibrationCounts(CLASSES, num_bins)
    counts.update(logits, labels, **options)
    return counts


def logits_of(*rows):
    """Logits with these probabilities of the four classes."""
    return torch.tensor(rows, dtype=torch.float64).log()


@given(seeds, st.integers(1, 20), st.integers(1, 80))
def test_errors_are_those_of_torchmetrics(seed, num_bins, num_samples):
    logits, labels = draw(seed, num_samples)
    summary = counted(logits, labels, num_bins).summary()
    for norm, name in (('l1', 'ece'), ('max', 'mce')):
        metric = MulticlassCalibrationError(NUM_CLASSES, num_bins, norm)
        theirs = float(metric(logits.softmax(1), labels))
        assert summary[name] == pytest.approx(theirs, abs=2e-6)


@given(seeds, st.integers(2, 80))
def test_nll_and_brier_are_those_of_scikit_learn(seed, num_samples):
    logits, labels = draw(seed, num_samples)
    summary = counted(logits, labels).summary()
    p, known = logits.double().softmax(1).numpy(), range(NUM_CLASSES)
    assert summary['nll'] == pytest.approx(log_loss(labels, p, labels=known), rel=1e-5)
    theirs = brier_score_loss(labels, p, labels=known, scale_by_half=False)
    assert summary['brier'] == pytest.approx(theirs, abs=1e-6)


def test_an_example_counted_by_hand():
    # Confidences 0.4 (right), 0.4 (wrong), 0.7 (right), 0.9 (wrong) in two bins.
    logits = logits_of(
        [0.4, 0.2, 0.2, 0.2],
        [0.4, 0.2, 0.2, 0.2],
        [0.1, 0.7, 0.1, 0.1],
        [0.04, 0.03, 0.9, 0.03],
    )
    counts = counted(logits, torch.tensor([0, 1, 1, 0]), num_bins=2)
    summary = counts.summary()
    assert summary['samples'] == 4
    assert summary['accuracy'] == 0.5
    assert summary['confidence'] == pytest.approx(0.6)
    # |0.8 - 1| / 4 + |1.6 - 1| / 4; the larger gap is 0.3 of two samples.
    assert summary['ece'] == pytest.approx(0.2)
    assert summary['mce'] == pytest.approx(0.3)
    first, second = counts.diagram()
    assert (first['low'], first['high'], second['high']) == (0, 0.5, 1)
    assert first['samples'] == second['samples'] == 2
    assert first['confidence'] == pytest.approx(0.4) and first['accuracy'] == 0.5
    per_class = {row['class']: row for row in counts.per_class()}
    assert per_class['a']['samples'] == 2
    assert per_class['a']['ece'] == pytest.approx(0.1)
    assert per_class['b']['ece'] == pytest.approx(0.3)
    assert per_class['c']['accuracy'] == 0
    assert per_class['d'] == {
        'class': 'd',
        'samples': 0,
        'confidence': None,
        'accuracy': None,
        'ece': None,
    }


def test_a_confidence_on_an_edge_is_in_the_bin_below():
    counts = counted(torch.zeros(1, 4), torch.tensor([0]), num_bins=4)
    assert counts.summary()['confidence'] == 0.25
    assert [row['samples'] for row in counts.diagram()] == [1, 0, 0, 0]
    sure = counted(torch.tensor([[99.0, 0, 0, 0]]), torch.tensor([0]), num_bins=2)
    assert [row['samples'] for row in sure.diagram()] == [0, 1]


@given(seeds, st.integers(1, 6), st.integers(1, 12))
def test_adaptive_error_has_bins_of_equal_counts(seed, num_bins, to_a_bin):
    logits, labels = draw(seed, num_bins * to_a_bin)
    confidence, guess = logits.double().softmax(1).max(1)
    order = confidence.argsort()
    gaps = [
        abs(float((confidence[part] - (guess == labels)[part].double()).mean()))
        for part in order.chunk(num_bins)
    ]
    found = counted(logits, labels, num_bins).summary()['adaptive_ece']
    # Confidences closer than a cell are taken as one.
    assert found == pytest.approx(np.mean(gaps), abs=1e-3)


def test_adaptive_error_of_equal_confidences_is_their_gap():
    logits = logits_of(*[[0.7, 0.1, 0.1, 0.1]] * 10)
    labels = torch.tensor([0] * 4 + [1] * 6)
    summary = counted(logits, labels).summary()
    assert summary['adaptive_ece'] == pytest.approx(0.3)


@given(seeds, st.integers(1, 59))
def test_parts_count_as_all_at_once(seed, cut):
    logits, labels = draw(seed)
    counts = counted(logits[:cut], labels[:cut])
    counts.update(logits[cut:], labels[cut:])
    whole = counted(logits, labels).summary()
    for name, value in counts.summary().items():
        assert value == pytest.approx(whole[name], rel=1e-9)


def test_ignored_samples_do_not_count():
    logits, labels = draw(0)
    labels[::3] = 255
    kept = labels != 255
    assert (
        counted(logits, labels).summary()
        == counted(logits[kept], labels[kept]).summary()
    )
    nothing = counted(logits, torch.full((60,), 255)).summary()
    assert nothing['samples'] == 0 and nothing['ece'] is None


def test_the_temperature_divides_the_logits():
    logits, labels = draw(0)
    assert counted(logits, labels, temperature=2.0).summary() == pytest.approx(
        counted(logits / 2, labels).summary()
    )


@pytest.mark.parametrize('temperature', [0.3, 1.0, 4.0])
def test_a_temperature_that_was_put_in_is_found(temperature):
    logits, _ = draw(0, 20000, sharpness=2.0)
    labels = torch.multinomial(logits.softmax(1), 1)[:, 0]
    found = fit_temperature(logits * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.05)


@given(seeds)
def test_no_other_temperature_has_less_nll(seed):
    logits, labels = draw(seed)
    best = fit_temperature(logits, labels)
    nll = counted(logits, labels, temperature=best).summary()['nll']
    for factor in (0.5, 0.9, 1.1, 2.0):
        other = counted(logits, labels, temperature=best * factor)
        assert other.summary()['nll'] >= nll - 1e-6


def test_temperature_of_logits_that_are_all_right_is_the_smallest():
    logits, _ = draw(0)
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ('logits', 'labels', 'text'),
    [
        (torch.zeros(2, 3), [0, 0], r'\(2, 3\) for 2 labels: expected \(2, 4\)'),
        (torch.zeros(2, 4), [0], 'for 1 labels'),
        (torch.zeros(1, 4), [4], r'label 4: expected 0\.\.3, or 255'),
        (torch.zeros(1, 4), [-1], 'label -1'),
        (torch.full((1, 4), float('nan')), [0], 'not finite'),
    ],
)
def test_what_cannot_be_counted_is_refused(logits, labels, text):
    with pytest.raises(ValueError, match=text):
        counted(logits, torch.tensor(labels))


def test_no_bins_and_no_samples_are_refused():
    with pytest.raises(ValueError, match='num_bins=0: expected at least 1'):
        CalibrationCounts(CLASSES, 0)
    with pytest.raises(ValueError, match='hold more images out'):
        fit_temperature(torch.zeros(0, 4), torch.zeros(0))
