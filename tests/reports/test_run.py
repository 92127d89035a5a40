import json
import shutil

import cv2
import numpy as np
import pytest

from illama_seg.apis import load_config, load_segmentor
from illama_seg.datasets import LabelledImages
from illama_seg.evaluation import colour_baseline, position_baseline
from illama_seg.reports import report_run
from illama_seg.studies.common import evaluate


@pytest.fixture(scope='module')
def report(run, tmp_path_factory):
    """Folder, result and table of the report on a copy of the run."""
    folder = shutil.copytree(run.work_dir, tmp_path_factory.mktemp('report') / 'run')
    return folder, *report_run(folder, num_images=2, baselines=True)


def test_the_result_is_also_in_a_file_beside_the_pictures(report):
    folder, result, _ = report
    assert json.loads((folder / 'result.json').read_text()) == result
    assert set(result['image_accuracy']) == {'validation_0.jpg', 'validation_1.jpg'}
    for name in ('predictions.png', 'curves.png'):
        assert cv2.imread(str(folder / name)).shape[0] > 100


def test_the_miou_is_the_one_that_mmseg_logged(report, run):
    _, result, _ = report
    (log,) = run.work_dir.glob('*/vis_data/scalars.json')
    lines = map(json.loads, log.read_text().splitlines())
    logged = next(line for line in lines if 'mIoU' in line)
    for key in ('mIoU', 'mAcc', 'aAcc'):
        assert result[key] == pytest.approx(logged[key], abs=0.006)
    assert result['curves']['mIoU'] == [[2, logged['mIoU']]]
    assert [step for step, _ in result['curves']['loss']] == [1, 2]


def test_the_table_has_the_classes_present_and_no_others(report):
    _, result, table = report
    assert {'sky', 'road', 'car'} <= set(result['classes'])
    assert all(f'| {name} ' in table for name in result['classes'])
    rows = {line.split('|')[1].strip() for line in table.splitlines() if '|' in line}
    # mmseg's name of one class is 'bed ', with a space.
    assert rows == {name.strip() for name in result['classes']} | {'class'}
    assert f'mIoU {result["mIoU"]:.1f}' in table


def test_the_baselines_are_fitted_to_training_and_scored_on_validation(report, run):
    cfg = load_config(run.config)
    train, val = (
        [pair[:2] for pair in LabelledImages(cfg, split)] for split in ('train', 'val')
    )
    _, result, table = report
    classes = LabelledImages(cfg, 'val').dataset.metainfo['classes']
    colour = colour_baseline(train, val, classes)['mIoU']
    place = position_baseline(train, val, classes)['mIoU']
    assert colour > 60  # the classes differ in colour
    assert result['baselines']['colour of the pixel alone'] == colour
    assert result['baselines']['place in the image alone'] == place
    assert f'mIoU {colour:.1f} from the colour of the pixel alone' in table


def test_pairs_are_the_images_and_labels_as_they_are_on_the_disk(run):
    pairs = list(LabelledImages(load_config(run.config), 'val'))
    assert [path[-16:] for _, _, path in pairs] == [
        'validation_0.jpg',
        'validation_1.jpg',
    ]
    for image, labels, path in pairs:
        np.testing.assert_array_equal(image, cv2.imread(path))
        assert labels.shape == image.shape[:2]
        assert set(np.unique(labels)) == {2, 6, 20, 255}


def test_training_pairs_are_not_augmented(run):
    first, second = (
        [image for image, _, _ in LabelledImages(load_config(run.config), 'train')]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_evaluation_gives_the_accuracy_of_each_image(run):
    pairs = LabelledImages(load_config(run.config), 'val')
    model = load_segmentor(run.config, run.checkpoint)
    summary, scores = evaluate(model, pairs)
    # All images have as many annotated pixels, so the mean is that of all pixels.
    assert scores[:, 1].mean() == pytest.approx(summary['aAcc'])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='is not the work dir of a run'):
        report_run(tmp_path)
