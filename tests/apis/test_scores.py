import csv
import json
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image

from illama_seg.apis import evaluate_predictions, scores, write_scores
from illama_seg.evaluation import ConfusionMatrix
from illama_seg.visualization.confusion import draw_confusion


@pytest.fixture
def matrix():
    matrix = ConfusionMatrix(('sky', 'road', 'car', 'boat'))
    matrix.counts[:3, :3] = [[80, 20, 0], [5, 95, 0], [0, 30, 10]]
    return matrix


def test_the_csv_has_each_class_with_its_figures(matrix, tmp_path):
    write_scores(matrix, 3, tmp_path)
    with (tmp_path / 'per_class.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['class'] for row in rows] == ['sky', 'road', 'car', 'boat']
    assert float(rows[0]['IoU %']) == pytest.approx(100 * 80 / 105, abs=1e-3)
    assert float(rows[2]['accuracy %']) == 25
    assert (rows[1]['annotated px'], rows[1]['predicted px']) == ('100', '145')
    assert rows[3]['IoU %'] == rows[3]['accuracy %'] == ''


def test_the_files_hold_the_scores_and_the_numbers_of_the_picture(matrix, tmp_path):
    result = write_scores(matrix, 3, tmp_path / 'new')
    assert json.loads((tmp_path / 'new' / 'scores.json').read_text()) == result
    assert result == dict(matrix.summary(), images=3)
    assert result['final_score'] == (result['mIoU'] + result['aAcc']) / 2
    numbers = json.loads((tmp_path / 'new' / 'confusion.json').read_text())
    assert numbers['counts'] == matrix.counts.tolist()
    assert numbers['most_confused']['by_pixels'] == matrix.most_confused(25)
    assert numbers['most_confused']['by_share'][0]['annotated'] == 'car'
    assert (tmp_path / 'new' / 'confusion.png').is_file()


def test_the_picture_gives_each_of_150_names_its_line(tmp_path):
    matrix = ConfusionMatrix([f'a long name {number}' for number in range(150)])
    matrix.counts += np.eye(150, dtype=int)
    draw_confusion(matrix, tmp_path / 'many.png')
    height, width = cv2.imread(str(tmp_path / 'many.png')).shape[:2]
    assert min(height, width) > 150 * 12  # pixels of a line


def test_the_picture_is_dark_where_a_share_is_large_and_leaves_out_absent_classes(
    matrix, tmp_path
):
    def dark(counts):
        matrix.counts[:3, :3] = counts
        draw_confusion(matrix, tmp_path / 'few.png')
        picture = cv2.imread(str(tmp_path / 'few.png'))
        height, width = picture.shape[:2]
        blue = picture[: height * 3 // 4, : width // 2].astype(int)
        return ((blue.max(-1) < 130) & (blue.max(-1) > 80)).sum() / picture[..., 0].size

    assert dark(np.eye(3, dtype=int)) > 2 * dark(np.ones((3, 3), int)) + 0.05


def test_a_class_that_is_never_annotated_has_no_shares(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, 'text', lambda *call, **_: drawn.append(call[1:]))
    matrix = ConfusionMatrix('abc')
    matrix.counts[:3, :3] = [[1, 0, 3], [0, 4, 0], [0, 0, 0]]
    draw_confusion(matrix, tmp_path / 'few.png')
    cells = {(int(row), int(column)): text for column, row, text in drawn}
    assert set(cells) == {(row, column) for row in (0, 1) for column in range(3)}
    assert cells[0, 2] == '75' and cells[1, 1] == '100'


def test_nothing_counted_can_be_written(tmp_path):
    result = write_scores(ConfusionMatrix('ab'), 1, tmp_path)
    assert result['mIoU'] == 0 and result['classes'] == {}


def runner(total):
    """What a hook sees of a test of ``total`` images."""
    dataset = type('', (), dict(metainfo=dict(classes='ab'), __len__=lambda _: total))
    evaluator = SimpleNamespace(metrics=[IoUMetric(ignore_index=7)])
    loader = SimpleNamespace(dataset=dataset())
    return SimpleNamespace(
        test_loop=SimpleNamespace(dataloader=loader, evaluator=evaluator)
    )


def sample(truth, guess):
    fields = dict(gt_sem_seg=truth, pred_sem_seg=guess)
    return SegDataSample(
        **{
            name: PixelData(data=torch.tensor([values]))
            for name, values in fields.items()
            if values is not None
        }
    )


def test_images_that_a_distributed_sampler_repeats_are_counted_once(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, 'get_world_size', lambda: 2)
    counted = []
    for rank in (0, 1):
        monkeypatch.setattr(scores, 'get_rank', lambda rank=rank: rank)
        writer, test = scores.ScoresWriter(tmp_path), runner(3)
        writer.before_test_epoch(test)
        for _ in range(2):  # four places for three images
            writer.after_test_iter(test, 0, None, [sample([[0, 1]], [[0, 0]])])
        writer.after_test_epoch(test)
        counted.append(writer.images)
    assert counted == [2, 1]
    assert json.loads((tmp_path / 'scores.json').read_text())['images'] == 1


def test_the_label_that_the_metric_ignores_is_not_counted(tmp_path):
    writer, test = scores.ScoresWriter(tmp_path), runner(1)
    writer.before_test_epoch(test)
    writer.after_test_iter(test, 0, None, [sample([[0, 7, 1]], [[0, 0, 0]])])
    assert writer.matrix.counts.tolist() == [[1, 0], [1, 0]]


def test_without_annotations_no_scores_are_written(tmp_path):
    writer, test = scores.ScoresWriter(tmp_path / 'none'), runner(1)
    writer.before_test_epoch(test)
    writer.after_test_iter(test, 0, None, [sample(None, [[0]])])
    writer.after_test_epoch(test)
    assert not (tmp_path / 'none').exists()


@pytest.fixture
def pngs(tmp_path):
    def write(guess, truth):
        for folder, labels in (('pred', guess), ('ann', truth)):
            (tmp_path / folder).mkdir()
            path = tmp_path / folder / 'x.png'
            Image.fromarray(np.array(labels, np.uint8)).save(path)
        return partial(
            evaluate_predictions,
            tmp_path / 'pred',
            tmp_path / 'ann',
            out=tmp_path / 'out',
        )

    return write


def test_without_options_the_ids_are_those_of_ade20k(pngs):
    result, table = pngs([[3, 150, 1]], [[3, 150, 0]])()
    assert set(result['classes']) == {'sky', 'flag'} and result['mIoU'] == 100
    assert '| sky ' in table and 'final score 100.0, 1 images' in table


def test_a_config_names_classes_and_ids_without_its_data(pngs, tmp_path):
    config = tmp_path / 'config.py'
    dataset = dict(type='CamVidDataset', data_root='nowhere', data_prefix={})
    config.write_text(f'test_dataloader = dict(dataset={dataset})')
    result, _ = pngs([[0, 10, 1]], [[0, 10, 11]])(config=config)
    assert set(result['classes']) == {'Sky', 'Bicyclist'} and result['mIoU'] == 100


@pytest.mark.parametrize(
    ('options', 'names'),
    [
        (dict(num_classes=3), {'class 0', 'class 1'}),
        (dict(num_classes=3, from_zero=True), {'class 0', 'class 1', 'class 2'}),
        (
            dict(num_classes=3, from_zero=True, ignore_index=2),
            {'class 0', 'class 1'},
        ),
    ],
)
def test_classes_can_be_counted_instead_of_named(options, names, pngs):
    labels = [[1, 2]] if 'from_zero' not in options else [[0, 1, 2]]
    guess = [[1, 2]] if 'from_zero' not in options else [[0, 1, 2]]
    result, _ = pngs(guess, labels)(**options)
    assert set(result['classes']) == names


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(config='c.py', num_classes=3), 'leave out num_classes'),
        (dict(num_classes=0), r'num_classes=0: expected 1\.\.255'),
        (dict(ignore_index=256), 'ignore_index=256'),
        (dict(workers=0), 'workers=0'),
        (
            dict(config='illama_tiny_in1k'),
            r"in1k': ImageNetDataset is",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        evaluate_predictions(tmp_path, tmp_path, out=tmp_path, **options)
