import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DATASETS
from mmseg.apis import inference_model
from tiny_classifier import CONFIG, OPTIONS, build, save

from illama_seg.apis import load_config, load_segmentor
from illama_seg.datasets.labelled import LabelledImages
from illama_seg.studies import build_classifier, measure_loss_landscape
from illama_seg.studies.loss_landscape import measure as loss_landscape
from illama_seg.studies.loss_landscape.plane import WeightPlane

SMALL = dict(points=3, num_images=20, split='test', cfg_options=OPTIONS)


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Checkpoint, folder, numbers and table of a random classifier of digits."""
    folder = tmp_path_factory.mktemp('landscape')
    model = build()
    model.head.fc.weight.data.normal_(std=0.4)
    checkpoint = save(model, folder / 'run' / 'digits.pth')
    numbers, table = measure_loss_landscape(
        CONFIG, [checkpoint], out=folder / 'out', radius=0.5, **SMALL
    )
    return checkpoint, folder / 'out', numbers, table


@pytest.fixture
def undrawn(monkeypatch):
    """Without pictures, which take longer than all else."""
    monkeypatch.setattr(loss_landscape, 'draw_loss_landscape', lambda *_: None)


@pytest.fixture
def computed(monkeypatch, undrawn):
    """What is computed anew: the losses in their order."""
    losses, real = [], loss_landscape._loss

    def loss(*batches):
        losses.append(real(*batches))
        return losses[-1]

    monkeypatch.setattr(loss_landscape, '_loss', loss)
    return losses


def test_a_point_has_the_loss_of_the_weights_moved_there(measured):
    checkpoint, _, numbers, _ = measured
    (model,) = numbers['models']
    cfg = load_config(CONFIG, OPTIONS)
    classifier = build_classifier(cfg, checkpoint, 'cpu')
    data = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    drawn = np.random.default_rng(0).permutation(50)[:20]
    infos = [data.get_data_info(int(index)) for index in drawn]
    labels = torch.tensor([info['gt_label'] for info in infos])
    assert model['axis'] == [-0.5, 0, 0.5] and model['images'] == 20
    with WeightPlane(classifier.module, 0) as plane:
        for row, column in ((1, 1), (0, 2), (2, 1)):
            plane.move(model['axis'][column], model['axis'][row])
            logits = classifier.logits([classifier.load(info) for info in infos])
            expected = F.cross_entropy(logits, labels).item()
            assert model['loss'][row][column] == pytest.approx(expected, rel=1e-5)
            hits = (logits.argmax(1) == labels).float().mean().item()
            assert model['accuracy'][row][column] == pytest.approx(hits)
    assert len({value for row in model['loss'] for value in row}) == 9


def test_files_and_table_hold_the_same_numbers(measured):
    _, folder, numbers, table = measured
    assert json.loads((folder / 'loss_landscape.json').read_text()) == numbers
    assert cv2.imread(str(folder / 'loss_landscape.png')).shape[0] > 400
    assert f'{numbers["models"][0]["loss"][1][1]:.4g}' in table
    assert 'run/digits' in table and 'DigitsDataset, test' in table
    assert (folder / 'points_run_digits.jsonl').is_file()


def test_the_reports_page_has_the_figures_of_the_grid(measured, reported):
    numbers = measured[2]
    head, (row,) = reported('loss_landscape.json', numbers)
    loss = np.array(numbers['models'][0]['loss'])
    shown = dict(zip(head, row, strict=True))
    assert shown['model'] == 'run/digits' and shown['data'] == 'DigitsDataset, test'
    expected = dict(
        centre=loss[1, 1],
        lowest=loss.min(),
        median=np.median(loss),
        highest=loss.max(),
    )
    assert shown['within +1'] == f'{(loss <= loss[1, 1] + 1).mean():.1%}'
    for name, value in expected.items():
        assert float(shown[name]) == pytest.approx(value, rel=1e-3), name


# Resuming


def copied(measured, tmp_path, lines):
    """A folder that has the settings and some of the points."""
    _, folder, *_ = measured
    whole = (folder / 'points_run_digits.jsonl').read_text().splitlines(keepends=True)
    assert len(whole) == 10
    (tmp_path / 'points_run_digits.jsonl').write_text(''.join(whole[:lines]))
    return tmp_path / 'points_run_digits.jsonl'


@pytest.mark.parametrize('cut', [False, True])
def test_a_call_cut_off_goes_on_and_ends_with_the_same_numbers(
    measured, tmp_path, computed, cut
):
    checkpoint, _, numbers, _ = measured
    file = copied(measured, tmp_path, 8)
    if cut:
        file.write_text(file.read_text()[:-9])
    for left in (3 if cut else 2, 0):
        computed.clear()
        again, _ = measure_loss_landscape(
            CONFIG, [checkpoint], out=tmp_path, radius=0.5, **SMALL
        )
        assert again == numbers and len(computed) == left
    assert len(file.read_text().splitlines()) == 10


def test_an_interruption_leaves_what_was_computed(measured, tmp_path, monkeypatch):
    checkpoint, _, numbers, _ = measured
    real, calls = loss_landscape._loss, []

    def interrupted(*batches):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*batches)

    monkeypatch.setattr(loss_landscape, '_loss', interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_loss_landscape(CONFIG, [checkpoint], out=tmp_path, radius=0.5, **SMALL)
    lines = (tmp_path / 'points_run_digits.jsonl').read_text().splitlines()
    assert len(lines) == 1 + 3
    first = json.loads(lines[1])
    assert first['loss'] == numbers['models'][0]['loss'][0][0]


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(seed=1), 'seed=0 instead of 1'),
        (dict(num_images=21), 'images=20 instead of 21'),
        (dict(radius=1.0), r'radius=0\.5 instead of 1\.0'),
        (dict(points=5), 'points=3 instead of 5'),
    ],
)
def test_points_of_other_settings_are_refused_and_kept(
    measured, tmp_path, computed, options, text
):
    checkpoint, *_ = measured
    file = copied(measured, tmp_path, 5)
    before = file.read_text()
    options = SMALL | dict(radius=0.5) | options
    with pytest.raises(ValueError, match=rf'{text}: .* \(out\), or .* \(restart\)'):
        measure_loss_landscape(CONFIG, [checkpoint], out=tmp_path, **options)
    assert file.read_text() == before and not computed


def test_points_of_other_weights_in_a_file_of_the_same_name_are_refused(
    measured, tmp_path, computed
):
    other = save(build(), tmp_path / 'run' / 'digits.pth')
    file = copied(measured, tmp_path, 5)
    settings, *points = file.read_text().splitlines()
    moved = json.loads(settings) | dict(source=str(other))
    file.write_text('\n'.join([json.dumps(moved), *points]) + '\n')
    options = SMALL | dict(radius=0.5)
    with pytest.raises(ValueError, match='weights='):
        measure_loss_landscape(CONFIG, [other], out=tmp_path, **options)
    measure_loss_landscape(CONFIG, [other], out=tmp_path, restart=True, **options)
    assert len(computed) == 9


@pytest.mark.parametrize(
    ('place', 'text'),
    [(0, 'does not start with the settings'), (2, 'line 3, is damaged')],
)
def test_a_damaged_file_of_points_is_refused(measured, tmp_path, place, text):
    checkpoint, *_ = measured
    file = copied(measured, tmp_path, 5)
    lines = file.read_text().splitlines()
    lines[place] = lines[place][:20]
    file.write_text('\n'.join(lines))
    with pytest.raises(ValueError, match=text):
        measure_loss_landscape(CONFIG, [checkpoint], out=tmp_path, radius=0.5, **SMALL)


# What it takes


def test_random_weights_and_earlier_models_stand_beside(measured, tmp_path):
    _, folder, numbers, _ = measured
    beside = [folder / 'loss_landscape.json']
    both, table = measure_loss_landscape(
        CONFIG, ['random'], out=tmp_path, beside=beside, radius=0.5, **SMALL
    )
    assert both['models'][1:] == numbers['models'] and 'random weights' in table
    wide, narrow = (
        cv2.imread(str(path / 'loss_landscape.png')).shape[1]
        for path in (tmp_path, folder)
    )
    assert wide > narrow


def test_a_loss_that_is_not_finite_is_a_hole(measured, tmp_path, monkeypatch):
    checkpoint, *_ = measured
    real, calls = loss_landscape._loss, []

    def loss(batches, ignore_index):
        calls.append(1)
        scale = torch.nan if len(calls) == 1 else 1
        scaled = ((logits * scale, *others) for logits, *others in batches)
        return real(scaled, ignore_index)

    monkeypatch.setattr(loss_landscape, '_loss', loss)
    numbers, table = measure_loss_landscape(CONFIG, [checkpoint], out=tmp_path, **SMALL)
    grid = numbers['models'][0]['loss']
    assert grid[0][0] is None and grid[1][1] > 0 and 'nan' not in table
    text = (tmp_path / 'loss_landscape.json').read_text()
    assert 'NaN' not in text and (tmp_path / 'loss_landscape.png').is_file()


def test_a_segmentors_loss_is_of_the_labelled_pixels(run, tmp_path, undrawn):
    options = {'test_dataloader.dataset.data_root': str(run.data)}
    numbers, _ = measure_loss_landscape(
        run.config,
        [run.checkpoint],
        out=tmp_path,
        points=3,
        radius=0.2,
        split='test',
        cfg_options=options,
    )
    (model,) = numbers['models']
    assert (model['kind'], model['images']) == ('segmentation', 2)
    segmentor = load_segmentor(run.config, run.checkpoint, 'cpu')
    rows, labels = [], []
    for image, label, _ in LabelledImages(load_config(run.config), 'test'):
        logits = inference_model(segmentor, image).seg_logits.data
        rows.append(logits.flatten(1).T[label.flatten() != 255])
        labels.append(torch.from_numpy(label[label != 255]).long())
    expected = F.cross_entropy(torch.cat(rows), torch.cat(labels)).item()
    assert model['loss'][1][1] == pytest.approx(expected, rel=1e-4)
    assert len({value for row in model['loss'] for value in row}) == 9


# Mistakes


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(points=4), 'points=4: .* an odd number from 3 on'),
        (dict(radius=0.0), r'radius=0\.0'),
        (dict(num_images=0), 'num_images=0'),
        (dict(split='val'), "split='val'"),
        (dict(batch_size=0), 'batch_size=0'),
        (dict(seed=-1), 'seed.-1: expected a number from 0 on'),
        (dict(beside=['none.json']), "beside='none.json': no such file"),
        (dict(beside=[__file__]), r'expected the loss_landscape\.json of an'),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, text, tmp_path):
    options = dict(points=3) | options
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        measure_loss_landscape(CONFIG, ['random'], out=tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


def test_data_of_more_classes_than_the_model_are_refused(tmp_path):
    options = OPTIONS | {'model.head.num_classes': 3}
    with pytest.raises(
        ValueError, match=r'has 3 classes, the test data .* 10: expected'
    ):
        measure_loss_landscape(
            CONFIG, ['random'], out=tmp_path, split='test', cfg_options=options
        )
