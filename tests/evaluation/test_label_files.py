import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from mmengine.structures import PixelData
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

from illama_seg.datasets import CamVidDataset, CheckedADE20KDataset
from illama_seg.evaluation import (
    ConfusionMatrix,
    LabelIds,
    count_label_files,
    label_files,
)

ADE20K = CheckedADE20KDataset.METAINFO['classes']
TWO = LabelIds.of(('a', 'b'), reduce_zero_label=True)


@pytest.fixture
def folders(tmp_path):
    """Predictions and annotations, and a function that writes a pair of them."""

    def write(name, guess, truth, mode=None):
        for folder, labels in (('pred', guess), ('ann', truth)):
            if labels is not None:
                path = tmp_path / folder / f'{name}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.asarray(labels, np.uint8), mode).save(path)

    return tmp_path / 'pred', tmp_path / 'ann', write


def count(folders, ids=TWO, **options):
    return count_label_files(*folders[:2], ids, num_workers=1, **options)


def test_a_case_of_2x2_is_what_it_is_by_hand(folders):
    folders[2]('x', [[1, 2], [2, 1]], [[1, 1], [2, 0]])
    matrix, images = count(folders)
    assert images == 1 and matrix.counts.tolist() == [[1, 1], [0, 1]]
    summary = matrix.summary()
    assert summary['mIoU'] == 50  # 1 of 2 and 1 of 2
    assert summary['mAcc'] == 75  # 1 of 2 and 1 of 1
    assert summary['aAcc'] == pytest.approx(200 / 3)
    assert summary['final_score'] == pytest.approx((50 + 200 / 3) / 2)


def test_scores_are_those_of_mmseg_on_ade20ks_ids(folders):
    rng = np.random.default_rng(0)
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=ADE20K)
    for number in range(20):  # more than one chunk
        truth = rng.integers(0, 151, (9, 11))
        guess = np.where(rng.random((9, 11)) < 0.5, truth.clip(1), 150)
        folders[2](f'sub{number % 2}/{number}', guess, truth)
        label = torch.tensor(np.where(truth == 0, 255, truth - 1))
        sample = SegDataSample(
            gt_sem_seg=PixelData(data=label[None]),
            pred_sem_seg=PixelData(data=torch.tensor(guess - 1)[None]),
        )
        metric.process({}, [sample.to_dict()])
    theirs = metric.compute_metrics(metric.results)
    ids = LabelIds.of(ADE20K, reduce_zero_label=True)
    matrix, images = count_label_files(*folders[:2], ids, num_workers=2)
    ours = matrix.summary()
    assert images == 20 and matrix.counts.sum() > 1000
    for key in ('mIoU', 'mAcc', 'aAcc'):
        assert ours[key] == pytest.approx(theirs[key], abs=0.006)


@pytest.mark.parametrize(
    ('dataset', 'reduce', 'classes'),
    [
        (CheckedADE20KDataset, True, None),
        (CheckedADE20KDataset, True, ('sky', 'car', 'wall')),
        (CamVidDataset, False, None),
        (CamVidDataset, False, ('Car', 'Sky')),
    ],
)
def test_ids_of_annotations_are_read_as_mmseg_reads_them(
    dataset, reduce, classes, tmp_path
):
    label_map = dataset.get_label_map(classes)
    names = classes or dataset.METAINFO['classes']
    every_id = np.arange(512).reshape(2, 256).astype(np.uint8)
    Image.fromarray(every_id).save(tmp_path / 'ids.png')
    results = dict(
        seg_map_path=str(tmp_path / 'ids.png'),
        reduce_zero_label=reduce,
        label_map=label_map,
        seg_fields=[],
    )
    expected = LoadAnnotations()(results)['gt_seg_map'][0].astype(int)
    table = LabelIds.of(names, reduce, label_map).annotated
    ignored, known = expected == 255, expected < len(names)
    assert (table[ignored] == -1).all()
    # Ids that the data set does not have are refused, here and by CheckAnnotations.
    original = len(dataset.METAINFO['classes']) + reduce
    listed = np.arange(256) < original
    np.testing.assert_array_equal(
        table[known & listed & ~ignored], expected[known & listed & ~ignored]
    )
    assert (table[~listed & ~ignored] == -2).all()


@settings(max_examples=30)
@given(st.integers(1, 200), st.booleans(), st.none() | st.integers(0, 255))
def test_every_id_is_a_class_not_counted_or_unknown(num_classes, reduce, ignored):
    ids = LabelIds.of(range(num_classes), reduce, ignore_index=ignored)
    for number in range(256):
        expected = number - reduce if reduce <= number < num_classes + reduce else -2
        if number in (255, ignored) or (reduce and number == 0):
            expected = -1
        assert ids.annotated[number] == expected
        assert ids.predicted[number] == (-2 if expected == -1 else expected)


def test_predictions_may_count_from_zero_beside_annotations_that_do_not(folders):
    folders[2]('x', [[0, 1]], [[1, 2]])
    ids = LabelIds.of(('a', 'b'), True, predictions_from_zero=True)
    assert count(folders, ids)[0].counts.tolist() == [[1, 0], [0, 1]]


def test_what_is_predicted_where_nothing_is_annotated_does_not_matter(folders):
    folders[2]('x', [[1, 99, 0]], [[1, 0, 255]])
    assert count(folders)[0].counts.tolist() == [[1, 0], [0, 0]]


def test_a_palettes_numbers_count_not_its_colours(folders):
    folders[2]('x', [[1, 2]], [[1, 2]])
    for folder in folders[:2]:
        image = Image.open(folder / 'x.png').convert('L')
        image.putpalette([5, 5, 5, 200, 0, 0, 0, 200, 0] + [0] * 759)
        image.save(folder / 'x.png')
        assert Image.open(folder / 'x.png').mode == 'P'
    assert count(folders)[0].counts.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ('guess', 'truth', 'texts'),
    [
        ([[1, 2]], [[3, 1]], ['ann/x.png: id 3 in 1 pixels', '1..2 (classes), 0, 255']),
        ([[0, 0]], [[1, 1]], ['pred/x.png: id 0 in 2 pixels', 'predictions_from_zero']),
        ([[1]], [[1, 1]], ['pred/x.png is (1, 1)', 'ann/x.png is (1, 2)']),
        ([[[1] * 3]], [[1]], ['pred/x.png has 3 channels', 'not coloured']),
    ],
)
def test_a_file_that_cannot_be_compared_is_named_with_the_way_out(
    guess, truth, texts, folders
):
    folders[2]('fine', [[1]], [[1]])
    folders[2]('x', guess, truth)
    with pytest.raises(ValueError) as error:
        count(folders)
    assert '1 of 2 images cannot be compared' in str(error.value)
    assert all(text in str(error.value) for text in texts)


def test_a_damaged_file_is_named(folders):
    folders[2]('x', [[1]], [[1]])
    (folders[0] / 'x.png').write_bytes(b'junk')
    with pytest.raises(ValueError, match=r'pred/x\.png is damaged'):
        count(folders)


def test_ids_of_16_bits_are_not_cut_to_8(folders):
    folders[2]('x', [[1]], [[1]])
    Image.fromarray(np.array([[257]], np.uint16)).save(folders[0] / 'x.png')
    with pytest.raises(ValueError, match=r'x\.png: id 257; expected 0\.\.255'):
        count(folders)


@pytest.mark.parametrize(
    ('pairs', 'text'),
    [
        (
            (([[1]], [[1]]), (None, [[1]])),
            r'1 images of .*ann are not in .*pred: 1\.png',
        ),
        (
            (([[1]], [[1]]), ([[1]], None)),
            r'1 images of .*pred are not in .*ann: 1\.png',
        ),
    ],
)
def test_missing_and_extra_files_are_named_and_can_be_left_out(pairs, text, folders):
    for number, pair in enumerate(pairs):
        folders[2](str(number), *pair)
    with pytest.raises(FileNotFoundError, match=rf'{text}.*partial=True'):
        count(folders)
    assert count(folders, partial=True)[1] == 1


def test_folders_that_share_no_name_cannot_be_counted_in_part(folders):
    folders[2]('x', [[1]], None)
    folders[2]('y', None, [[1]])
    with pytest.raises(FileNotFoundError, match=r'y\.png'):
        count(folders, partial=True)


def test_missing_and_empty_folders_are_named(folders):
    with pytest.raises(FileNotFoundError, match=r'no folder .*pred'):
        count(folders)
    folders[0].mkdir()
    with pytest.raises(FileNotFoundError, match=r'no file in .*pred ends in \.png'):
        count(folders)


def test_memory_does_not_grow_with_the_number_of_images(folders):
    folders[2]('x', np.ones((300, 300)), np.ones((300, 300)))

    def peak(images):
        tracemalloc.start()
        pair = tuple(folder / 'x.png' for folder in folders[:2])
        label_files._count_chunk(TWO, [pair] * images)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(2) > 90_000  # the labels of one image
    assert peak(50) < peak(2) + 90_000


def test_pairs_most_confused_come_by_pixels_or_by_share():
    matrix = ConfusionMatrix('abc')
    matrix.counts[:] = [[90, 10, 0], [0, 1, 4], [0, 0, 5]]
    first, second = matrix.most_confused(9)
    assert first == dict(annotated='a', predicted='b', pixels=10, share=10)
    assert second == dict(annotated='b', predicted='c', pixels=4, share=80)
    assert matrix.most_confused(1, 'share') == [second]
