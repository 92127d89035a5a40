import json

import cv2
import pytest

from illama_seg.studies.comparison.classes import compare_classes, saved_scores


def summary(miou, **classes):
    return dict(
        mIoU=miou, classes={name: dict(IoU=iou) for name, iou in classes.items()}
    )


def cells(table, name):
    (line,) = (line for line in table.splitlines() if line.startswith(f'| {name} '))
    return [cell.strip() for cell in line.strip('|').split('|')][1:]


def test_classes_go_from_the_largest_gain_to_the_largest_loss(tmp_path):
    scores = dict(
        old=dict(
            a=summary(40.0, sky=90.0, car=20.0, bus=10.0, road=50.0),
            b=summary(50.0, sky=90.0, car=40.0, bus=30.0),
        ),
        new=dict(new=summary(55.0, sky=80.0, car=60.0, bus=25.0)),
    )
    table = compare_classes(scores, 'made up', tmp_path)
    assert cells(table, 'mean') == ['45.0', '55.0', '+10.0']
    assert cells(table, 'car') == ['30.0', '60.0', '+30.0']
    assert cells(table, 'sky') == ['90.0', '80.0', '-10.0']
    assert cells(table, 'road') == ['50.0', '-', '-']  # new neither has nor predicts it
    order = [table.index(f'| {name} ') for name in ('car', 'bus', 'sky', 'road')]
    assert order == sorted(order)
    numbers = json.loads((tmp_path / 'classes.json').read_text())
    assert numbers['source'] == 'made up' and table.endswith('made up')
    assert numbers['classes']['bus'] == dict(old=20.0, new=25.0)
    assert numbers['difference'] == {
        'car': {'new': 30.0},
        'bus': {'new': 5.0},
        'sky': {'new': -10.0},
        'road': {'new': None},
    }
    assert numbers['groups']['old'] == dict(mIoU=45.0, runs=dict(a=40.0, b=50.0))


def test_the_image_grows_with_the_classes_and_takes_any_number_of_runs(tmp_path):
    heights = {}
    for groups, classes in ((1, 3), (2, 3), (3, 150)):
        found = {f'class {number}': float(number % 100) for number in range(classes)}
        scores = {
            f'run {group}': dict(it=summary(50.0, **found)) for group in range(groups)
        }
        compare_classes(scores, '', tmp_path)
        heights[groups, classes] = cv2.imread(str(tmp_path / 'classes.png')).shape[0]
    assert heights[1, 3] == heights[2, 3] > 100
    assert heights[3, 150] > 10 * 150  # pixels that a name needs


def test_scores_that_a_test_left_are_taken_only_where_they_count_the_same(tmp_path):
    groups = {name: [tmp_path / name] for name in ('one', 'two')}

    def write(name, images):
        folder = tmp_path / name / 'test'
        folder.mkdir(parents=True, exist_ok=True)
        content = dict(summary(float(images), sky=5.0), images=images)
        (folder / 'scores.json').write_text(json.dumps(content))

    write('one', 7)
    with pytest.raises(FileNotFoundError, match=r'two/test/scores.json: test the run'):
        saved_scores(groups)
    write('two', 8)
    with pytest.raises(ValueError, match=r'count \[7, 8\] images'):
        saved_scores(groups)
    write('two', 7)
    scores, source = saved_scores(groups)
    assert scores['two']['two']['classes'] == dict(sky=dict(IoU=5.0))
    assert 'test/scores.json' in source and '7 images' in source
