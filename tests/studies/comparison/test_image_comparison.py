import json
import shutil
import sys
import weakref

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from tiny_run import SIZE, make_ade20k, run_tool

from illama_seg.studies import compare_images
from illama_seg.studies.comparison.images import rank_images

SKY, ROAD, CAR = 2, 6, 20  # class numbers
ROWS = [{SKY: 48, ROAD: 15}, {SKY: 15, ROAD: 32, CAR: 16}]  # of each image


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two validation images with stripes of classes below a row without annotation."""
    root = make_ade20k(tmp_path_factory.mktemp('compared') / 'ade20k')
    for index, rows in enumerate(ROWS):
        ids = np.repeat([0, *(number + 1 for number in rows)], [1, *rows.values()])
        labels = np.broadcast_to(ids.astype(np.uint8)[:, None], SIZE)
        path = root / 'annotations' / 'validation' / f'validation_{index}.png'
        Image.fromarray(labels.copy()).save(path)
    return root


def work_dir(run, data, folder, number):
    """A work dir of a model that finds the same class everywhere."""
    shutil.copytree(run.work_dir, folder)
    config = folder / run.config.name
    config.write_text(config.read_text().replace(str(run.data), str(data)))
    checkpoint = folder / run.checkpoint.name
    state = torch.load(checkpoint, weights_only=False)
    weights = state['state_dict']
    weights['decode_head.conv_seg.weight'].zero_()
    weights['decode_head.conv_seg.bias'].zero_()
    weights['decode_head.conv_seg.bias'][number] = 1
    torch.save(state, checkpoint)
    return folder


@pytest.fixture
def make_run(run, data, tmp_path):
    """Make a work dir by name and class number."""
    return lambda name, number: work_dir(run, data, tmp_path / name, number)


@pytest.fixture(scope='module')
def compared(run, data, tmp_path_factory):
    """What is written, said and listed of a run that finds sky and one that road."""
    base = tmp_path_factory.mktemp('pair')
    runs = [
        work_dir(run, data, base / name, number)
        for name, number in (('sky', SKY), ('road', ROAD))
    ]
    return base / 'out', *compare_images(runs, base / 'out', num_images=1)


def expected(number):
    """mIoU and accuracy of each image where everything is of one class."""
    shares = [100 * rows.get(number, 0) / sum(rows.values()) for rows in ROWS]
    return [
        dict(mIoU=pytest.approx(share / len(rows), abs=0.01), accuracy=round(share, 2))
        for share, rows in zip(shares, ROWS, strict=True)
    ]


def test_each_image_has_the_runs_figures_and_the_reason_why_it_is_drawn(compared):
    out, text, files = compared
    numbers = json.loads((out / 'images.json').read_text())
    for index, image in enumerate(numbers['images']):
        assert image['image'] == f'validation_{index}.jpg'
        assert image['runs'] == image['mean']
        assert image['mean']['sky'] == expected(SKY)[index]
        assert image['mean']['road'] == expected(ROAD)[index]
    assert numbers['drawn'] == [
        dict(why='sky better', image='validation_0.jpg'),
        dict(why='road better', image='validation_1.jpg'),
        dict(why='worst for all', image='validation_1.jpg'),
        dict(why='best for all', image='validation_0.jpg'),
    ]
    assert numbers['better'] == dict(sky=1, road=1)
    assert numbers['checkpoints'] == dict(sky='iter_2.pth', road='iter_2.pth')
    assert 'better than every other: sky 1, road 1' in text
    assert files == ['classes.png', 'classes.json', 'images.png', 'images.json']


def test_the_picture_has_annotations_and_each_runs_predictions(compared):
    picture = cv2.imread(str(compared[0] / 'images.png'))[..., ::-1]
    sky, road, car = (
        (picture == colour).all(-1).sum()
        for colour in ([6, 230, 230], [140, 140, 140], [0, 102, 200])
    )
    # Rows of pixels: both annotations twice, and four predictions of one class.
    assert car > 1000
    assert sky / car == pytest.approx((2 * (48 + 15) + 4 * 63) / (2 * 16), rel=0.1)
    assert road / car == pytest.approx((2 * (15 + 32) + 4 * 63) / (2 * 16), rel=0.1)


def test_class_differences_are_those_of_all_images_together(compared):
    out, text, _ = compared
    numbers = json.loads((out / 'classes.json').read_text())
    whole = sum(map(sum, map(dict.values, ROWS)))
    of_sky, of_road = 100 * (48 + 15) / whole, 100 * (15 + 32) / whole
    assert numbers['difference']['sky']['road'] == pytest.approx(-of_sky)
    assert numbers['difference']['road']['road'] == pytest.approx(of_road)
    assert numbers['classes']['car'] == dict(sky=0, road=0)
    assert numbers['groups']['sky']['mIoU'] == pytest.approx(of_sky / 3)
    assert f' {-of_sky:.1f} |' in text and f' +{of_road:.1f} |' in text


def test_seeds_of_a_group_are_averaged_and_its_first_is_drawn(make_run, tmp_path):
    mixed = tmp_path / 'mixed'
    make_run('mixed/0', SKY), make_run('mixed/1', ROAD)
    out = tmp_path / 'out'
    compare_images([mixed, make_run('car', CAR)], out, num_images=1)
    numbers = json.loads((out / 'images.json').read_text())
    for index, image in enumerate(numbers['images']):
        assert image['runs'].keys() == {'mixed/0', 'mixed/1', 'car'}
        assert image['runs']['mixed/1'] == expected(ROAD)[index]
        pair = expected(SKY)[index]['accuracy'] + expected(ROAD)[index]['accuracy']
        assert image['mean']['mixed']['accuracy'] == pytest.approx(pair / 2, abs=0.01)
    groups = json.loads((out / 'classes.json').read_text())['groups']
    assert groups['mixed']['runs'].keys() == {'mixed/0', 'mixed/1'}


def test_no_image_is_kept_while_others_are_predicted(make_run, tmp_path, monkeypatch):
    module, alive, most = sys.modules['illama_seg.studies.comparison.images'], [], []

    def predict(model, image):
        alive.append(weakref.ref(image))
        most.append(sum(reference() is not None for reference in alive))
        return np.full(image.shape[:2], SKY, np.uint8)

    monkeypatch.setattr(module, 'predict', predict)
    monkeypatch.setattr('illama_seg.studies.common.predict', predict)
    monkeypatch.setattr(
        module.LabelledImages,
        '__getitem__',
        lambda self, index: (
            np.zeros((*SIZE, 3), np.uint8),
            np.ones(SIZE, np.uint8),
            'x.jpg',
        ),
    )
    monkeypatch.setattr(module.LabelledImages, '__len__', lambda self: 20)
    monkeypatch.setattr(module.LabelledImages, 'name', lambda self, index: str(index))
    compare_images([make_run('a', SKY)], tmp_path / 'out', num_images=1)
    assert len(most) > 20 and max(most) <= 2


def test_a_missing_checkpoint_leaves_the_curves_and_is_named(
    make_run, tmp_path, capsys
):
    sky, road, out = make_run('sky', SKY), make_run('road', ROAD), tmp_path / 'out'
    (road / 'iter_2.pth').unlink()
    run_tool('analysis/compare', sky, road, '--out', out)
    printed = capsys.readouterr().out
    assert '| sky ' in printed and (out / 'compare.png').is_file()
    (line,) = (line for line in printed.splitlines() if 'compared: ' in line)
    assert f'{road} has no iter_2.pth' in line and 'put the file back' in line
    assert 'images.png' not in printed and not (out / 'images.json').exists()


def test_runs_of_other_data_are_not_compared_by_image(make_run, tmp_path, monkeypatch):
    sky, road = make_run('sky', SKY), make_run('road', ROAD)
    (config,) = road.glob('*.py')
    text = config.read_text()
    config.write_text(text + "\nval_dataloader['dataset']['indices'] = 1\n")
    said, files = compare_images([sky, road], tmp_path / 'out')
    assert 'sky and road have other validation images (2 and 1' in said and not files
    assert 'only in one: validation_1.jpg' in said and '\n' not in said
    names = "['dataset']['metainfo'] = dict(classes=('sky', 'road'))\n"
    config.write_text(f'{text}\nval_dataloader{names}')
    said, _ = compare_images([sky, road], tmp_path / 'out')
    assert 'have other classes (150 and 2; only in one:' in said
    config.write_text(text.replace('validation', 'absent'))
    said, _ = compare_images([sky, road], tmp_path / 'out')
    assert 'absent' in said and '\n' not in said


def test_without_predictions_the_classes_come_from_the_tests(make_run, tmp_path):
    sky, out = make_run('sky', SKY), tmp_path / 'out'
    said, files = compare_images([sky], out, num_images=0)
    assert f'no {sky}/test/scores.json: test the run with' in said
    assert not files
    (config,), work_dir = sky.glob('*.py'), sky / 'test'
    run_tool('test', config, sky / 'iter_2.pth', '--work-dir', work_dir)
    said, files = compare_images([sky], out, num_images=0)
    assert files == ['classes.png', 'classes.json'] and 'test/scores.json' in said
    saved = json.loads((out / 'classes.json').read_text())['classes']
    compare_images([sky], out, num_images=1)
    assert json.loads((out / 'classes.json').read_text())['classes'] == saved
    (sky / 'iter_2.pth').unlink()
    said, files = compare_images([sky], out, num_images=1)
    assert 'has no iter_2.pth' in said and files == ['classes.png', 'classes.json']


def test_classifications_have_no_images_and_nothing_is_said_of_them(tmp_path):
    path = tmp_path / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('{"accuracy/top1": 50.0, "step": 1}')
    assert compare_images([tmp_path / 'run'], tmp_path / 'out') == ('', [])
    with pytest.raises(ValueError, match='num_images=-1: expected at least 0'):
        compare_images([tmp_path / 'run'], tmp_path / 'out', num_images=-1)


@given(
    arrays(
        float,
        st.tuples(st.integers(2, 4), st.integers(1, 8)),
        elements=st.sampled_from([0.0, 10.0, 20.0, 55.5, 100.0, np.nan]),
    )
)
def test_images_are_ranked_by_margin_and_by_the_best_and_worst_group(mious):
    lines = [f'run {number}' for number in range(len(mious))]
    kinds = rank_images(mious, lines)
    annotated = [i for i in range(mious.shape[1]) if not np.isnan(mious[:, i]).any()]
    for number, line in enumerate(lines):
        margins = {
            i: mious[number, i] - max(np.delete(mious[:, i], number)) for i in annotated
        }
        found = kinds[f'{line} better']
        assert set(found) == {i for i in annotated if margins[i] > 0}
        assert [margins[i] for i in found] == sorted(
            (margins[i] for i in found), reverse=True
        )
    worst, best = kinds['worst for all'], kinds['best for all']
    assert sorted(worst) == sorted(best) == annotated
    assert [max(mious[:, i]) for i in worst] == sorted(max(mious[:, i]) for i in worst)
    lows = [min(mious[:, i]) for i in best]
    assert lows == sorted(lows, reverse=True)
