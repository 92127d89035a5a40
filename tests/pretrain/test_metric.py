import pytest
import torch
from hypothesis import given, strategies as st
from mmengine.evaluator import Evaluator

from illama_seg.pretrain import Accuracy, DataSample


def evaluated(scores, labels, topk, batch=3):
    """Through mmengine's evaluator, in batches."""
    evaluator = Evaluator(dict(type='Accuracy', topk=topk))
    samples = [
        DataSample().set_gt_label(label).set_pred_score(score)
        for score, label in zip(scores, labels, strict=True)
    ]
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start : start + batch])
    return evaluator.evaluate(len(samples))


@given(
    num_images=st.integers(1, 20),
    num_classes=st.integers(2, 8),
    k=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_accuracy_is_what_sorting_each_images_scores_gives(
    num_images, num_classes, k, seed
):
    k = min(k, num_classes)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(num_images, num_classes, generator=generator)
    labels = torch.randint(0, num_classes, (num_images,), generator=generator)
    hits = {1: 0, k: 0}
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(num_classes), key=lambda c: -row[c])
        for top in hits:
            hits[top] += label in order[:top]
    found = evaluated(scores, labels, tuple(hits))
    expected = {f'accuracy/top{k}': 100 * n / num_images for k, n in hits.items()}
    assert found == pytest.approx(expected)


def test_equal_scores_for_all_classes_are_chance_and_not_a_hit():
    labels = torch.arange(10).repeat(3)
    assert evaluated(torch.ones(30, 10), labels, 1) == {'accuracy/top1': 10}


def test_more_places_than_classes_are_refused_with_the_option():
    with pytest.raises(ValueError, match=r'there are 3 classes: .*val_evaluator\.topk'):
        evaluated(torch.rand(2, 3), [0, 1], (1, 5))


def test_scores_that_are_no_numbers_are_not_counted():
    with pytest.raises(ValueError, match='not finite'):
        evaluated(torch.full((1, 3), torch.nan), [0], 1)


@pytest.mark.parametrize('topk', [0, (), (1, -1)])
def test_places_below_one_are_refused(topk):
    with pytest.raises(ValueError, match='topk='):
        Accuracy(topk)
